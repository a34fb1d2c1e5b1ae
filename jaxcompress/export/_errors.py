# SPDX-License-Identifier: Apache-2.0
"""What an exporter cannot write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from ._graph import Operation


class Problem(NamedTuple):
    """An operation without a counterpart in the target.

    Attributes:
      primitive: name of the JAX primitive.
      scope: where it stands in the model.
      shapes: dtypes and shapes of its operands, as text.
      reason: what of it is not supported; "" if nothing is.
    """

    primitive: str
    scope: str
    shapes: str
    reason: str

    @classmethod
    def of(cls, operation: Operation, reason: str = "") -> Problem:
        """Return the problem of one operation."""
        shapes = ", ".join(
            f"{atom.dtype}[{','.join(map(str, atom.shape))}]" for atom in operation.ins
        )
        return cls(operation.primitive, operation.scope, shapes, reason)

    def __str__(self) -> str:
        place = f" in {self.scope}" if self.scope else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.primitive}({self.shapes}){place}{reason}"


class UnsupportedOperation(NotImplementedError):
    """Operations of a model have no counterpart in the target.

    Attributes:
      problems: all of them.
    """

    def __init__(self, target: str, problems: Iterable[Problem]):
        self.problems = list(problems)
        lines = list(dict.fromkeys(f"  {problem}" for problem in self.problems))
        super().__init__(
            f"{len(self.problems)} operations cannot be exported to {target}; nothing "
            "was written:\n"
            + "\n".join(lines)
            + "\nCompute these outside of the exported "
            "function, or write them with other functions of jax.numpy."
        )
