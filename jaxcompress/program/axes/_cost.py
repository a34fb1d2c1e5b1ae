# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of a program whose axes lost some of their indices."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, Region
from ._axis import Axis
from ._kept import Kept
from ._link import AxisGraph


class Products:
    """The matrix products and convolutions of a program, as products of axes.

    Args:
      graph: axes of the program.
    """

    def __init__(self, graph: AxisGraph):
        self._terms = list(_terms(graph, graph.program.root, []))

    def macs(self, kept: Kept) -> int:
        """Return the multiply-accumulates with the indices that are kept."""
        return sum(math.prod(map(kept.size, axes)) for axes in self._terms)


def _terms(graph: AxisGraph, region: Region, loops: list[Axis]) -> Iterator[list[Axis]]:
    for node in region.nodes:
        steps = graph.steps.get(node)
        inside = loops if steps is None else [*loops, steps]
        for body in node.bodies:
            yield from _terms(graph, body, inside)
        if node.primitive in ("dot_general", "conv_general_dilated"):
            yield [*loops, *_axes(graph, node)]


def _axes(graph: AxisGraph, node: Node) -> list[Axis]:
    lhs, rhs = (graph.of(value) for value in node.ins)
    (out,) = (graph.of(value) for value in node.outs)
    if node.primitive == "dot_general":
        return [*out, *(lhs[i] for i in _compat.dot_axes(node.eqn).lhs)]
    _, inputs, *space = _compat.convolution(node.eqn).rhs_spec
    batch, feature, *places = _compat_shapes.result_axes(node.eqn)
    axes = [out[i] for i in (batch, feature, *places)]
    return [*axes, rhs[inputs], *(rhs[i] for i in space)]
