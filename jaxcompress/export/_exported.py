# SPDX-License-Identifier: Apache-2.0
"""The result of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """How the runtime's results on the example compare with the simulation's.

    Attributes:
      error: the largest difference.
      tolerance: the largest difference that was allowed.
      reason: why so much was allowed.
    """

    error: float
    tolerance: float
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """An exported file.

    Attributes:
      path: the file.
      bytes: its size.
      runtime: the runtime that was tested with it.
      integers: products that run on integers.
      floats: products that run on floats, each with the reason.
      operators: what the runtime executes, with the dtype of the result, and how often.
      notes: what differs from the function, or from what the runtime does best.
      check: the comparison of the runtime with the simulation.
      batch: None if the file takes any batch, else the only batch size of a run.
    """

    path: Path
    bytes: int
    runtime: str
    integers: tuple[str, ...]
    floats: Mapping[str, str]
    operators: Mapping[str, int]
    notes: tuple[str, ...]
    check: Check
    batch: int | None

    def __str__(self) -> str:
        """Return the result as text for people."""
        total = len(self.integers) + len(self.floats)
        batch = "any batch" if self.batch is None else f"batch {self.batch}"
        lines = [
            f"{self.path}: {self.bytes:,} bytes for {self.runtime}, {batch}",
            f"  {len(self.integers)} of {total} products run on integers",
            *(f"  float: {name} ({why})" for name, why in self.floats.items()),
            "  operators: "
            + ", ".join(f"{n} {name}" for name, n in sorted(self.operators.items())),
            f"  largest difference from the simulation {self.check.error:.3g}, allowed "
            f"{self.check.tolerance:.3g}: {self.check.reason}",
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)
