# SPDX-License-Identifier: Apache-2.0
"""What patterns ask of a graph."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...program.dataflow import Atom, Constant, Graph, Operation
from ._elementwise import scalar


class Match(NamedTuple):
    """What to write instead of a pattern.

    Attributes:
      operations: in place of the last operation of the pattern.
      inside: its other operations.
    """

    operations: list[Operation]
    inside: list[Operation]


class Matcher:
    """The graph, as patterns see it."""

    def __init__(self, graph: Graph):
        self._producers = {id(out): op for op in graph.operations for out in op.outs}
        self._readers = graph.readers()
        self._outputs = {id(atom) for atom in graph.outputs}

    def op(self, atom: Atom | None, *primitives: str) -> Operation | None:
        """Return the operation that computes a value, if it is one of these."""
        op = self._producers.get(id(atom))
        return op if op is not None and op.primitive in primitives else None

    def floats(self, op: Operation) -> bool:
        """Return whether the result of an operation is computed in float32."""
        name = np.dtype(op.outs[0].dtype).name
        return name in ("bfloat16", "float16") or name == "float32"

    def inner(self, root: Operation, inside: list[Operation], gone: set[int]) -> bool:
        """Return whether nothing else reads the inner values of a pattern."""
        own = {id(op) for op in (*inside, root)}
        if own & gone:
            return False
        return all(
            id(out) not in self._outputs
            and all(id(reader) in own for reader in self._readers.get(id(out), []))
            for op in inside
            for out in op.outs
        )

    def with_scalar(self, op: Operation | None) -> tuple[Atom | None, float]:
        """Split two operands into data and a number; (None, NaN) if they are not that."""
        if op is None or len(op.ins) != 2:
            return None, math.nan
        for x, number in (op.ins, op.ins[::-1]):
            value = scalar(number)
            if not isinstance(x, Constant) and not math.isnan(value):
                return x, value
        return None, math.nan

    def times(self, atom: Atom | None, number: float) -> tuple[Atom, Operation] | None:
        """Match ``x * number`` or ``x / (1 / number)``."""
        op = self.op(atom, "mul", "div")
        x, factor = self.with_scalar(op)
        if op is None or x is None or factor == 0:
            return None
        if op.primitive == "div":
            if x is not op.ins[0]:
                return None
            factor = 1 / factor
        return (x, op) if math.isclose(factor, number, rel_tol=1e-5) else None

    def plus(self, atom: Atom | None, number: float) -> tuple[Atom, Operation] | None:
        """Match ``x + number``."""
        op = self.op(atom, "add")
        x, term = self.with_scalar(op)
        if op is None or x is None or not math.isclose(term, number, rel_tol=1e-5):
            return None
        return x, op

    def divided(self, op: Operation, primitive: str) -> tuple[Operation, float] | None:
        """Match the result of ``primitive``, divided by a number."""
        x, number = self.with_scalar(op)
        summed = self.op(x, primitive)
        if summed is None or not self.floats(op) or not number:
            return None
        if op.primitive == "div" and x is op.ins[0]:
            return summed, number
        return (summed, 1 / number) if op.primitive == "mul" else None

    def kept(
        self, atom: Atom | None, *primitives: str
    ) -> tuple[Operation, list[Operation]] | None:
        """Match a reduction whose axes are kept with length 1.

        Returns:
          The reduction, and the operations of the pattern.
        """
        spread = self.op(atom, "broadcast_in_dim", "reshape", "expand_dims")
        if spread is None:
            return None
        reduced = self.op(spread.ins[0], *primitives)
        if reduced is None or not self.keeps(spread, reduced):
            return None
        return reduced, [spread, reduced]

    def keeps(self, spread: Operation, reduced: Operation) -> bool:
        """Return whether ``spread`` puts back the axes of a reduction, with length 1."""
        if len(spread.ins) > 1:
            return False
        shape, axes = reduced.ins[0].shape, tuple(reduced.params["axes"])
        ones = tuple(1 if a in axes else n for a, n in enumerate(shape))
        if spread.outs[0].shape != ones:
            return False
        if spread.primitive != "broadcast_in_dim":
            return True
        rest = [a for a in range(len(shape)) if a not in axes]
        return list(spread.params["broadcast_dimensions"]) == rest
