# SPDX-License-Identifier: Apache-2.0
"""What the axes of attention are: heads, features of queries and keys, values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..trace import _compat
from ..trace._graph import Node, Value, nodes
from ._axis import Axis, atoms
from ._link import AxisGraph


def attention_roles(graph: AxisGraph) -> dict[Axis, str]:
    """Name the atomic axes of attention.

    Attention is a product of data with data, queries with keys, whose result has the same
    axes as an operand of another such product, the one with the values.

    Returns:
      ``"heads"``, ``"queries of a head"`` (if several share their keys),
      ``"query-key"`` or ``"values"`` by atomic axis.
    """
    products = [
        node
        for node in nodes(graph.program.root)
        if node.primitive == "dot_general" and all(v.origin.data for v in node.ins)
    ]
    scores = {_key(graph, node.outs[0]): node for node in products}
    found: dict[Axis, set[str]] = {}

    def name(axes: Iterable[Axis], role: str) -> None:
        for axis in axes:
            for atom in atoms(axis):
                found.setdefault(atom, set()).add(role)

    for second in products:
        for side in (0, 1):
            first = scores.get(_key(graph, second.ins[side]))
            if first is None or first is second:
                continue
            axes = _compat.dot_axes(first.eqn)
            queries = graph.of(first.ins[0])
            name((queries[i] for i in axes.lhs_batch), "heads")
            name((queries[i] for i in axes.lhs), "query-key")
            name(_free(graph, second, 1 - side), "values")
            # Positions, too, but these are never channels.
            for i in (0, 1):
                name(_free(graph, first, i), "queries of a head")
    return {atom: roles.pop() for atom, roles in found.items() if len(roles) == 1}


def _key(graph: AxisGraph, value: Value) -> frozenset[tuple[Axis, int]]:
    """Return the atomic axes of a value, in any order."""
    counts = Counter(a for axis in graph.of(value) for a in atoms(axis) if a.size != 1)
    return frozenset(counts.items())


def _free(graph: AxisGraph, node: Node, side: int) -> list[Axis]:
    """Return the axes of an operand that are neither summed over nor shared."""
    axes = _compat.dot_axes(node.eqn)
    used = (*axes.lhs, *axes.lhs_batch) if side == 0 else (*axes.rhs, *axes.rhs_batch)
    return [a for i, a in enumerate(graph.of(node.ins[side])) if i not in used]
