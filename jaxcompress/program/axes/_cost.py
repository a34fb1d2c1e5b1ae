# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of a program whose axes lost some of their indices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from typing import NamedTuple

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, Region, Value
from ._axis import Axis
from ._kept import Kept
from ._link import LOOPS, AxisGraph


class Products:
    """The matrix products and convolutions of a program, as products of axes.

    Args:
      graph: axes of the program.
    """

    def __init__(self, graph: AxisGraph):
        self._terms = list(_terms(graph, graph.program.root, []))

    def macs(self, kept: Kept, read: Set[Value] | None = None) -> int:
        """Return the multiply-accumulates with the indices that are kept.

        Args:
          kept: the indices.
          read: the values outside of loops that are still computed; None for all.
        """
        return sum(
            math.prod(map(kept.size, term.axes))
            for term in self._terms
            if read is None or not read.isdisjoint(term.results)
        )


class _Term(NamedTuple):
    results: Sequence[Value]  # of the product, or of the outermost loop around it
    axes: list[Axis]


def _terms(
    graph: AxisGraph,
    region: Region,
    loops: list[Axis],
    results: Sequence[Value] | None = None,
) -> Iterator[_Term]:
    for node in region.nodes:
        steps = graph.steps.get(node)
        inside = loops if steps is None else [*loops, steps]
        outer = results or (node.outs if node.primitive in LOOPS else None)
        for body in node.bodies:
            yield from _terms(graph, body, inside, outer)
        if node.primitive in ("dot_general", "conv_general_dilated"):
            yield _Term(results or node.outs, [*loops, *_axes(graph, node)])


def _axes(graph: AxisGraph, node: Node) -> list[Axis]:
    lhs, rhs = (graph.of(value) for value in node.ins)
    (out,) = (graph.of(value) for value in node.outs)
    if node.primitive == "dot_general":
        return [*out, *(lhs[i] for i in _compat.dot_axes(node.eqn).lhs)]
    _, inputs, *space = _compat.convolution(node.eqn).rhs_spec
    batch, feature, *places = _compat_shapes.result_axes(node.eqn)
    axes = [out[i] for i in (batch, feature, *places)]
    return [*axes, rhs[inputs], *(rhs[i] for i in space)]
