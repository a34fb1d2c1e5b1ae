# SPDX-License-Identifier: Apache-2.0
"""What the rules of all primitives share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..trace import _compat
from ..trace._graph import Node
from ._axis import Axis, freeze, frozen, unify

Axes = list[Axis]
Rule = Callable[[Node, list[Axes]], list[Axes]]
"""``(node, axes of operands) -> axes of results``."""


def at(node: Node, text: str) -> str:
    """Return a reason that names the equation."""
    place = f" in {node.scope}" if node.scope else ""
    return f"{text} ({node.primitive}{place})"


def frozen_results(node: Node, ins: list[Axes], text: str) -> list[Axes]:
    reason = at(node, text)
    for axes in ins:
        for axis in axes:
            freeze(axis, reason)
    return [[frozen(n, reason) for n in _compat.shape(out)] for out in node.eqn.outvars]


def result_shape(node: Node) -> tuple[int, ...]:
    return _compat.shape(node.eqn.outvars[0])


def misfit(node: Node) -> str:
    return at(node, "axes that are divided in different ways meet here")


def aligned(node: Node, shape: Sequence[int], operands: Sequence[Axes]) -> Axes:
    """Unify the axes of operands that have the result's rank; size 1 repeats."""
    result: list[Axis | None] = [None] * len(shape)
    for axes in operands:
        if len(axes) != len(shape):
            for axis in axes:
                freeze(axis, misfit(node))
            continue
        for i, axis in enumerate(axes):
            other = result[i]
            if axis.size != shape[i]:
                continue
            if other is None:
                result[i] = axis
            else:
                unify(other, axis, misfit(node))
    return [
        frozen(n, at(node, "a repeated value")) if axis is None else axis
        for axis, n in zip(result, shape, strict=True)
    ]
