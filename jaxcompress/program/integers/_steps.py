# SPDX-License-Identifier: Apache-2.0
"""Reports of how products run: on integers, or why they run on floats."""

from __future__ import annotations

import dataclasses

from ..._table import table
from ..._warn import warn
from ..products._site import Site


class FloatWarning(UserWarning):
    """No product of a program runs on integers."""


@dataclasses.dataclass(frozen=True)
class Step:
    """How one product runs.

    Attributes:
      site: the product.
      integers: True if it multiplies integers.
      reason: why it runs on floats; empty if it does not.
    """

    site: Site
    integers: bool
    reason: str


@dataclasses.dataclass(frozen=True)
class Steps:
    """How every product runs, in order; prints as a table."""

    steps: tuple[Step, ...]

    @property
    def integer_macs(self) -> int:
        """Multiply-accumulates on integers per call; a ``while`` counts as one trip."""
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
    """Warn if no product runs on integers, and say why.

    Args:
      steps: steps of all products.
      which: words that describe the products.
    """
    if any(step.integers for step in steps.steps):
        return
    reasons = "\n".join(f"{s.site.name}: {s.reason}" for s in steps.steps)
    warn(f"no product {which}runs on integers:\n{reasons}", FloatWarning)
