# SPDX-License-Identifier: Apache-2.0
"""Prove that sums over pruned channels lose nothing but zeros.

A masked network computes zeros where a sliced network has no channels. They agree if
every sum over such an axis adds zeros there. Zeros come from the masked parameters and
survive products, sums of zeros, and functions such as ReLU and GELU, but not a sigmoid.
Where a masked network divides by zero, its results are not finite, and no claim survives.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..trace import _compat
from ..trace._graph import Node, Region, Value
from ._axis import Axis
from ._link import AxisGraph
from ._zero_rules import Claims, Zeros


def check_sums(graph: AxisGraph) -> dict[Axis, list[str]]:
    """Freeze axes along which a reduction would add values that are not zero.

    Returns:
      The other reductions over atomic axes. A module that is rebuilt at the new width may
      divide by another count there.
    """
    zeros = _Zeros(graph)
    zeros.run()
    return {atom: list(notes) for atom, notes in zeros.notes.items()}


class _Zeros(Claims):
    """Goes through a program and its loops."""

    def run(self) -> None:
        program = self.graph.program
        for value in program.root.ins[: len(program.paths)]:
            self.zeros[value] = self.everywhere(value)
        self.region(program.root)

    def region(self, region: Region) -> None:
        for node in region.nodes:
            if node.primitive in ("scan", "while", "cond"):
                getattr(self, node.primitive + "_")(node)
            elif node.bodies:
                for body in node.bodies:
                    self.region(body)
                if node in self.graph.rules:
                    self.derivative(node)
            else:
                self.step(node)

    def derivative(self, node: Node) -> None:
        """Check the sums in a custom derivative rule."""
        rule, program = self.graph.rules[node]
        inner = program.root.ins
        moved = rule.moved if rule.forward else []
        for value, outer in zip(inner, (*node.ins, *moved), strict=False):
            self.follow(value, outer)
        self.region(program.root)

    def scan_(self, node: Node) -> None:
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        for i, (inner, outer) in enumerate(zip(body.ins, node.ins, strict=True)):
            self.follow(inner, outer, -1 if i >= first else 0)
        self.settle(body, body.ins[parts.consts : first])
        for i, (inner, outer) in enumerate(zip(body.outs, node.outs, strict=True)):
            self.follow(outer, inner, 1 if i >= parts.carry else 0)

    def while_(self, node: Node) -> None:
        (body,) = node.bodies
        _, _, cond_consts, _ = _compat.while_parts(node.eqn)
        for inner, outer in zip(body.ins, node.ins[cond_consts:], strict=True):
            self.follow(inner, outer)
        self.settle(body, body.ins[len(body.ins) - len(body.outs) :])
        for inner, outer in zip(body.outs, node.outs, strict=True):
            self.follow(outer, inner)

    def settle(self, body: Region, carried: Sequence[Value]) -> None:
        """Weaken the claims about carried values until a trip keeps them.

        Nothing is refused before the claims are final.
        """
        self.unsettled += 1
        while True:
            self.region(body)
            before = [(self.of(v), self.infinite(v)) for v in carried]
            for value, result in zip(carried, body.outs, strict=False):
                zeros = _meet(self.of(value), self.of(result))
                self.claim(value, zeros, self.infinite(value, result))
            if before == [(self.of(v), self.infinite(v)) for v in carried]:
                break
        self.unsettled -= 1
        self.region(body)

    def cond_(self, node: Node) -> None:
        for body in node.bodies:
            for inner, outer in zip(body.ins, node.ins[1:], strict=True):
                self.follow(inner, outer)
            self.region(body)
        for out, *inner in zip(
            node.outs, *(body.outs for body in node.bodies), strict=True
        ):
            zeros = self.of(inner[0])
            for other in inner[1:]:
                zeros = _meet(zeros, self.of(other))
            self.claim(out, zeros, self.infinite(*inner))


def _meet(a: Zeros, b: Zeros) -> Zeros:
    if a is None or b is None:
        return b if a is None else a
    return a & b
