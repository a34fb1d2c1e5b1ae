# SPDX-License-Identifier: Apache-2.0
"""The result of an export."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """How the runtime's results on the example compare with the simulation's.

    Attributes:
      error: the largest difference.
      rule: what was demanded, and holds.
    """

    error: float
    rule: str


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
        reasons: dict[str, list[str]] = {}
        for name, why in self.floats.items():
            reasons.setdefault(why, []).append(name)
        counted = sorted(self.operators.items(), key=lambda item: -item[1])
        lines = [
            f"{self.path}: {self.bytes:,} bytes for {self.runtime}, {batch}",
            f"  {len(self.integers)} of {total} products run on integers",
            *(f"  float, {why}: {_few(names)}" for why, names in reasons.items()),
            *(
                [f"  operators: {_few([f'{n} {name}' for name, n in counted], 12)}"]
                if counted
                else []
            ),
            f"  check: off by {self.check.error:.3g}, {self.check.rule}",
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)


def _few(names: Sequence[str], most: int = 6) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
