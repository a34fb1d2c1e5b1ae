# SPDX-License-Identifier: Apache-2.0
"""Residual branches of a program: sums that pass their other operand on without them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from ..trace._graph import Node, Program, Value
from ._vanish import SUMMED, Vanishing, flat


@dataclasses.dataclass(frozen=True)
class Branch:
    """One operand of a sum that vanishes without its own parameters.

    Attributes:
      node: the sum.
      operand: which operand the branch computes.
      leaves: indices of the parameter leaves that nothing else reads.
    """

    node: Node
    operand: int
    leaves: frozenset[int]


def branches(program: Program) -> list[Branch]:
    """Find the residual branches of a program, outside of its loops, in order."""
    nodes = list(flat(program.root))
    inputs = program.root.ins[: len(program.paths)]
    leaves = {value: i for i, value in enumerate(inputs)}
    readers = dict.fromkeys(range(len(inputs)), 0)  # sets of nodes, as bits
    upstream: dict[Value, int] = {}
    for n, node in enumerate(nodes):
        before = 1 << n
        for value in node.ins:
            before |= upstream.get(value, 0)
            if value in leaves:
                readers[leaves[value]] |= 1 << n
        upstream.update(dict.fromkeys(node.outs, before))
    found = []
    for node in nodes:
        shapes = {v.aval.shape for v in (*node.ins, *node.outs)}
        if node.primitive not in SUMMED or len(shapes) != 1:
            continue
        if not all(v.origin.data for v in node.ins):
            continue
        for i in (0, 1):
            ours, other = (upstream.get(node.ins[j], 0) for j in (i, 1 - i))
            own = ours & ~other
            # Only what the branch alone reads goes with it.
            exclusive = frozenset(
                k for k, by in readers.items() if by and not by & ~own
            )
            branch = [node for n, node in enumerate(nodes) if own >> n & 1]
            result = Vanishing(branch, [inputs[k] for k in exclusive])
            if exclusive and node.ins[i] in result.zero:
                found.append(Branch(node, i, exclusive))
    return found


def needed(
    program: Program, outs: Iterable[Value], without: Mapping[Node, int]
) -> set[Value]:
    """Return the values that outputs depend on.

    Args:
      program: the program.
      outs: the outputs.
      without: sums that return one of their operands, by its number.
    """
    wanted = set(outs)
    for node in reversed(list(flat(program.root))):
        if not wanted.isdisjoint(node.outs):
            wanted.update([node.ins[without[node]]] if node in without else node.ins)
    return wanted
