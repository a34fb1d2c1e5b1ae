# SPDX-License-Identifier: Apache-2.0
"""Residual branches: which values vanish, and which pass unchanged, without parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, Region, Value
from ._signs import is_positive, pole
from ._zero_keeping import (
    FOLLOWS_FIRST,
    IDENTITIES,
    KEEPS_ZERO,
    MOVES,
    PRODUCTS,
    SUMS,
    WINDOWS,
    constant,
)

SUMMED = {"add", "add_any"}


def flat(region: Region) -> Iterator[Node]:
    """Iterate over the nodes of a region and of the calls in it, not of its loops."""
    for node in region.nodes:
        if node.bodies and node.primitive not in ("scan", "while", "cond"):
            for body in node.bodies:
                yield from flat(body)
        else:
            yield node


class Vanishing:
    """What becomes of values if some of them are zero.

    Args:
      nodes: nodes in order.
      zero: the values that are zero.

    Attributes:
      zero: all values that are zero then.
      same: values that equal another one then.
      wild: values that may not be finite then, since something is divided by zero.
    """

    def __init__(self, nodes: Iterable[Node], zero: Iterable[Value]):
        self.zero = set(zero)
        self.same: dict[Value, Value] = {}
        self.wild: set[Value] = set()
        for node in nodes:
            if self._is_wild(node):
                self.wild.update(node.outs)
            elif self._is_zero(node):
                self.zero.update(node.outs)
            elif (value := self._passed(node)) is not None:
                self.same[node.outs[0]] = self.origin(value)

    def origin(self, value: Value) -> Value:
        """Return the value that a value equals."""
        return self.same.get(value, value)

    def _has(self, value: Value) -> bool:
        return value in self.zero or constant(value) == 0

    def _is_wild(self, node: Node) -> bool:
        value = pole(node)
        divides = value is not None and not is_positive(value, self._has)
        return divides or not self.wild.isdisjoint(node.ins)

    def _is_zero(self, node: Node) -> bool:
        name, ins = node.primitive, [self._has(v) for v in node.ins]
        if name in PRODUCTS or name in ("dot_general", "conv_general_dilated"):
            return any(ins)
        if name in FOLLOWS_FIRST:
            return ins[0] and not ins[1]
        if name in KEEPS_ZERO or name in WINDOWS:
            return ins[0]
        if name.startswith("reduce_"):
            return ins[0] and name != "reduce_and"
        if name == "pad":
            return all(ins)
        if name in MOVES:
            return bool(ins) and ins[0]
        if name == "integer_pow":
            return ins[0] and _compat_shapes.power(node.eqn) > 0
        if name == "select_n":
            return all(ins[1:])
        if name in SUMS or name in ("concatenate", "stack", "dynamic_update_slice"):
            return all(ins)
        return False

    def _passed(self, node: Node) -> Value | None:
        """Return the operand that a node returns unchanged."""
        if len(node.outs) != 1:
            return None
        aval = node.outs[0].aval
        if (
            node.primitive in IDENTITIES | {"optimization_barrier"}
            and len(node.ins) == 1
        ):
            return node.ins[0]
        if node.primitive == "convert_element_type":
            return node.ins[0] if node.ins[0].aval.dtype == aval.dtype else None
        if node.primitive in SUMMED or node.primitive == "sub":
            first, second = node.ins
            if self._has(second) and first.aval.shape == aval.shape:
                return first
            is_sum = node.primitive in SUMMED
            if is_sum and self._has(first) and second.aval.shape == aval.shape:
                return second
        return None


def steps_add(node: Node) -> bool:
    """True if a step of a scan without its own parameters returns what it gets.

    Such a step, a residual block of a stack of layers, can be removed.
    """
    (body,) = node.bodies
    parts = _compat.scan_parts(node.eqn)
    first = parts.consts + parts.carry
    if not parts.carry or any(v.origin.data for v in node.ins[first:]):
        return False
    result = Vanishing(flat(body), body.ins[first:])
    carried = body.ins[parts.consts : first]
    return all(
        result.origin(out) is value
        for out, value in zip(body.outs[: parts.carry], carried, strict=True)
    )
