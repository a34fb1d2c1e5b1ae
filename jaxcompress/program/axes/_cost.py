# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of a program whose axes lost some of their indices."""

from __future__ import annotations

import math

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, nodes
from ._axis import Axis
from ._kept import Kept
from ._link import AxisGraph


class Products:
    """The matrix products and convolutions of a program, as products of axes.

    Args:
      graph: axes of the program.
    """

    def __init__(self, graph: AxisGraph):
        self._terms = [
            _term(graph, node)
            for node in nodes(graph.program.root)
            if node.primitive in ("dot_general", "conv_general_dilated")
        ]

    def macs(self, kept: Kept) -> int:
        """Return the multiply-accumulates with the indices that are kept."""
        return sum(
            times * math.prod(kept.size(axis) for axis in axes)
            for times, axes in self._terms
        )


def _term(graph: AxisGraph, node: Node) -> tuple[int, list[Axis]]:
    times = math.prod(loop.trips or 1 for loop in node.region.loops)
    lhs, rhs = (graph.of(value) for value in node.ins)
    (out,) = (graph.of(value) for value in node.outs)
    if node.primitive == "dot_general":
        return times, [*out, *(lhs[i] for i in _compat.dot_axes(node.eqn).lhs)]
    _, inputs, *space = _compat.convolution(node.eqn).rhs_spec
    batch, feature, *places = _compat_shapes.result_axes(node.eqn)
    axes = [out[i] for i in (batch, feature, *places)]
    return times, [*axes, rhs[inputs], *(rhs[i] for i in space)]
