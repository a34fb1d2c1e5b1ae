# SPDX-License-Identifier: Apache-2.0
"""Sources: the stored tensors that a value depends on, element by element."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..trace import _compat
from ..trace._graph import Node, Value
from ..trace._primitives import (
    COLLECTIVES,
    ELEMENTWISE,
    GATHERING,
    JOINING,
    MOVES,
    SELECTING,
)


class Sources:
    """Tells the inside of a softmax or a norm from a place where two tensors meet.

    Args:
      biases: operands that only shift or mask the scores of a softmax, by node.
    """

    def __init__(self, biases: Mapping[Node, int]):
        self.biases = biases
        self.cache: dict[Value, frozenset[int]] = {}

    def __call__(self, value: Value) -> frozenset[int]:
        """Return the stored tensors that a value depends on, element by element.

        A function of one tensor, even together with its own mean, still counts as one
        tensor. That tells the inside of a softmax or a norm from a residual sum. Masks and
        random bits do not count as tensors.
        """
        if value in self.cache:
            return self.cache[value]
        node = value.producer
        if not value.origin.data:
            tensors = frozenset()
        elif node is None or not (_passes(node) or is_statistic(value)):
            tensors = frozenset([id(value)] if is_quantizable(value) else [])
        else:
            bias = self.biases.get(node)
            parts = [self(v) for i, v in enumerate(node.ins) if i != bias]
            tensors = frozenset().union(*parts)
            if self.is_join(node):
                tensors = frozenset([id(value)])
        self.cache[value] = tensors
        return tensors

    def is_join(self, node: Node) -> bool:
        """True if the node combines two tensors."""
        if node in self.biases:
            return False
        if node.primitive not in JOINING or not is_quantizable(node.outs[0]):
            return False
        parts = {self(v) for v in node.ins} - {frozenset()}
        return len(parts) > 1

    def is_mask(self, node: Node) -> bool:
        """True if the node sets elements to zero independently of them, as dropout does."""
        if node.primitive == "mul":
            return any(_is_flag(v) and not self(v) for v in node.ins)
        if node.primitive != "select_n":
            return False
        which, *cases = node.ins
        return not self(which) and sum(map(is_zero, cases)) == 1


def is_statistic(value: Value) -> bool:
    """True if every path from data to the value goes through a sum over the batch."""
    pending, seen = [value], set()
    while pending:
        v = pending.pop()
        if v in seen or not v.origin.data:
            continue
        seen.add(v)
        node = v.producer
        if node is None:
            return False
        if reduces_batch(node):
            continue
        if not _passes(node) and node.primitive not in SELECTING:
            return False
        pending += node.ins
    return value.origin.data


def is_quantizable(value: Value) -> bool:
    """True for activations. Scalars, such as a temperature, do not count."""
    floating = _compat.is_floating(value.aval)
    return value.origin.data and floating and bool(value.aval.shape)


def _before_moves(value: Value) -> Iterator[Value]:
    yield value
    while value.producer is not None and value.producer.primitive in MOVES:
        value = value.producer.ins[0]
        yield value


def is_zero(value: Value) -> bool:
    """True if the value is a literal zero of any shape."""
    *_, first = _before_moves(value)
    return first.literal is not None and bool(first.literal == 0)


def _is_flag(value: Value) -> bool:
    """True if the value was converted from bools."""
    return any(v.aval.dtype == bool for v in _before_moves(value))


def is_scaling(node: Node) -> bool:
    """True if the node multiplies or divides data by a constant."""
    constants = [v for v in node.ins if not v.origin.data and not v.origin.leaves]
    return node.primitive in ("mul", "div") and len(constants) == 1


def _passes(node: Node) -> bool:
    """True if the result depends on the same tensors as the operands do."""
    name = node.primitive
    transparent = ELEMENTWISE | MOVES | COLLECTIVES | GATHERING
    return name in transparent or name.startswith("reduce_")


def reduces_batch(node: Node) -> bool:
    """True if the node reduces the first axis, which is assumed to be the batch."""
    return 0 in _compat.reduced_axes(node.eqn)


def is_rectifier(node: Node, *, bound: float | None = None) -> bool:
    """True if the node bounds a value by constants, as ReLU and ReLU6 do.

    Args:
      node: any node.
      bound: the only allowed bound; None allows any.
    """
    data = [v for v in node.ins if v.origin.data]
    others = [v for v in node.ins if not v.origin.data]
    return (
        node.primitive in ("max", "min", "clamp")
        and len(data) == 1
        and all(not v.origin.leaves and not v.aval.shape for v in others)
        and (bound is None or all(v.literal == bound for v in others))
    )
