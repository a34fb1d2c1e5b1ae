# SPDX-License-Identifier: Apache-2.0
"""What is said of how products run: on integers, or why not."""

from __future__ import annotations

import dataclasses
import warnings

from ..products._site import Site
from ..products._table import table


class FloatWarning(UserWarning):
    """Nothing of a program runs on integers."""


@dataclasses.dataclass(frozen=True)
class Step:
    """How one product runs.

    Attributes:
      site: the product.
      integers: whether it multiplies integers.
      reason: why it does not; empty where it does.
    """

    site: Site
    integers: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Steps:
    """How every product runs, in order; printed as a table."""

    steps: tuple[Step, ...]

    @property
    def integer_macs(self) -> int:
        """Multiply-accumulates on integers in one call, a ``while`` counted once."""
        return sum(s.site.macs * (s.site.trips or 1) for s in self.steps if s.integers)

    def __str__(self) -> str:
        rows = [
            [
                step.site.name,
                f"{step.site.macs * (step.site.trips or 1):,}",
                "int8 x int8 -> int32" if step.integers else f"float: {step.reason}",
            ]
            for step in self.steps
        ]
        return table([["site", "MACs", "runs as"], *rows])


def warn_of_floats(steps: Steps, which: str = "") -> None:
    """Say so if nothing runs on integers, and why; for ``run``, which users call.

    Args:
      steps: of all products.
      which: products these are.
    """
    if any(step.integers for step in steps.steps):
        return
    reasons = "\n".join(f"{s.site.name}: {s.reason}" for s in steps.steps)
    warnings.warn(
        f"no product {which}runs on integers:\n{reasons}", FloatWarning, stacklevel=3
    )
