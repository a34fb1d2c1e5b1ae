# SPDX-License-Identifier: Apache-2.0
"""Sources: the tensors that a value is a function of, element by element."""

from __future__ import annotations

from collections.abc import Iterator

from ..products._find import Found
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
    """Tells the inside of a softmax or a norm from where two tensors meet."""

    def __init__(self, found: Found):
        self.found = found
        self.known: dict[Value, frozenset[int]] = {}

    def __call__(self, value: Value) -> frozenset[int]:
        """The stored tensors that a value is a function of, element by element.

        A function of one tensor, its own mean included, is one tensor still: that tells
        the inside of a softmax or a norm from a residual sum. Masks and random bits are
        no tensors of their own.
        """
        if value in self.known:
            return self.known[value]
        node = value.producer
        if not value.origin.data:
            found = frozenset()
        elif node is None or not (_passes(node) or self.is_statistic(value)):
            found = frozenset([id(value)] if is_quantizable(value) else [])
        else:
            parts = [self(v) for v in node.ins]
            found = frozenset().union(*parts)
            if self.is_join(node):
                found = frozenset([id(value)])
        self.known[value] = found
        return found

    def is_join(self, node: Node) -> bool:
        """Whether it puts two tensors together."""
        if node.primitive not in JOINING or not is_quantizable(node.outs[0]):
            return False
        parts = {self(v) for v in node.ins} - {frozenset()}
        return len(parts) > 1

    def is_mask(self, node: Node) -> bool:
        """Whether it sets elements to zero for reasons of its own, as dropout does."""
        if node.primitive == "mul":
            return any(_is_flag(v) and not self(v) for v in node.ins)
        if node.primitive != "select_n":
            return False
        which, *cases = node.ins
        return not self(which) and sum(map(is_zero, cases)) == 1

    def is_statistic(self, value: Value) -> bool:
        """Whether every way from data to a value goes through a sum over the batch."""
        pending, seen = [value], set()
        while pending:
            v = pending.pop()
            if v in seen or not v.origin.data:
                continue
            seen.add(v)
            node = v.producer
            if node is None or node in self.found.sites:
                return False
            if reduces_batch(node):
                continue
            if not _passes(node) and node.primitive not in SELECTING:
                return False
            pending += node.ins
        return value.origin.data


def is_quantizable(value: Value) -> bool:
    """Whether it is an activation; a number by itself, such as a temperature, is none."""
    floating = _compat.is_floating(value.aval)
    return value.origin.data and floating and bool(value.aval.shape)


def _before_moves(value: Value) -> Iterator[Value]:
    yield value
    while value.producer is not None and value.producer.primitive in MOVES:
        value = value.producer.ins[0]
        yield value


def is_zero(value: Value) -> bool:
    """Whether it is a zero that stands in the program, of any shape."""
    *_, first = _before_moves(value)
    return first.literal is not None and bool(first.literal == 0)


def _is_flag(value: Value) -> bool:
    """Whether it is made of bools."""
    return any(v.aval.dtype == bool for v in _before_moves(value))


def is_scaling(node: Node) -> bool:
    """Whether it multiplies data by a number."""
    constants = [v for v in node.ins if not v.origin.data and not v.origin.leaves]
    return node.primitive in ("mul", "div") and len(constants) == 1


def _passes(node: Node) -> bool:
    """Whether its result is a function of the same tensors as its operands are."""
    name = node.primitive
    known = ELEMENTWISE | MOVES | COLLECTIVES | GATHERING
    return name in known or name.startswith("reduce_")


def reduces_batch(node: Node) -> bool:
    """Whether it takes away the first axis, which is taken for the batch."""
    return 0 in _compat.reduced_axes(node.eqn)


def is_rectifier(node: Node, *, bound: float | None = None) -> bool:
    """Whether it bounds a value by constants, as ReLU and ReLU6 do.

    Args:
      node: any.
      bound: the only one that is allowed; None: any.
    """
    data = [v for v in node.ins if v.origin.data]
    others = [v for v in node.ins if not v.origin.data]
    return (
        node.primitive in ("max", "min", "clamp")
        and len(data) == 1
        and all(not v.origin.leaves and not v.aval.shape for v in others)
        and (bound is None or all(v.literal == bound for v in others))
    )
