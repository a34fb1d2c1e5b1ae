# SPDX-License-Identifier: Apache-2.0
"""Metrics: what a model is good at, one value per seed, on a named split."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from .._arguments import check_whole

FRACTION = "fraction"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A quality of a model, one value per seed.

    Attributes:
      name: name, such as ``"accuracy"``.
      values: one finite number per seed.
      seeds: the seed of each value; all different.
      split: the examples it was measured on, such as ``"test"``.
      higher_is_better: False for a loss.
      unit: such as ``"bits"``. Values with the unit ``"fraction"`` are between 0 and 1,
        and shown as percentages.

    Raises:
      ValueError: if the lengths differ, there are no values, a value is not finite, a
        fraction is not between 0 and 1, or a seed occurs twice.

    Example:
      >>> print(Metric(name="F1", values=[0.5, 0.7], seeds=[0, 1], split="test",
      ...              higher_is_better=True))
      F1 (test): 0.60 ± 0.14 (2 seeds)
    """

    name: str
    values: Sequence[float]
    seeds: Sequence[int]
    split: str
    higher_is_better: bool
    unit: str = ""

    def __post_init__(self) -> None:
        # JSON has no tuples, and NumPy's numbers are not JSON.
        for seed in self.seeds:
            check_whole(seeds=seed)
        object.__setattr__(self, "values", tuple(map(float, self.values)))
        object.__setattr__(self, "seeds", tuple(map(int, self.seeds)))
        self._check()

    def _check(self) -> None:
        if not self.values or len(self.values) != len(self.seeds):
            raise ValueError(
                "values and seeds must have the same length, at least 1, got "
                f"{len(self.values)} values and {len(self.seeds)} seeds."
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(
                f"every seed must occur once, got {self.seeds}. The same run twice says "
                "nothing about the spread."
            )
        if not all(map(math.isfinite, self.values)):
            raise ValueError(
                f"values of {self.name!r} must be finite, got {self.values}. Leave the "
                "metric of a run that diverged out, and say so in the record's name."
            )
        if self.unit == FRACTION and not all(0 <= value <= 1 for value in self.values):
            raise ValueError(
                f"{self.name!r} must be fractions between 0 and 1, got {self.values}. "
                "Divide percentages by 100."
            )

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over the seeds; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def show(self, value: float) -> str:
        """Format a value of this metric with its unit."""
        if self.unit == FRACTION:
            return f"{100 * value:.2f} %"
        return f"{value:.4g}" + self._ending

    def show_difference(self, difference: float) -> str:
        """Format a difference of values with its sign and unit."""
        if self.unit == FRACTION:
            return f"{100 * difference:+.2f} points"
        return f"{difference:+.3g}" + self._ending

    def summary(self) -> str:
        """Format mean and spread."""
        if self.spread is None:
            return self.show(self.mean)
        if self.unit == FRACTION:
            return f"{100 * self.mean:.2f} ± {100 * self.spread:.2f} %"
        digits = _decimals(self.spread)
        if digits is None:
            return f"{self.mean:.4g} ± {self.spread:.2g}{self._ending}"
        return f"{self.mean:.{digits}f} ± {self.spread:.{digits}f}{self._ending}"

    @property
    def _ending(self) -> str:
        return f" {self.unit}" if self.unit else ""

    def __str__(self) -> str:
        seeds = seeds_text(len(self.seeds))
        return f"{self.name} ({self.split}): {self.summary()} ({seeds})"


def seeds_text(count: int) -> str:
    """Format a number of seeds."""
    return "1 seed" if count == 1 else f"{count} seeds"


def _decimals(spread: float) -> int | None:
    """Return the decimals that show two digits of a spread; None if there are too many."""
    if not 1e-6 < spread < 1e6:
        return None
    return max(0, 1 - math.floor(math.log10(spread)))


def accuracy(values: Sequence[float], seeds: Sequence[int], *, split: str) -> Metric:
    """Make a metric of accuracies: fractions between 0 and 1, of which more is better.

    Args:
      values: one fraction per seed.
      seeds: the seed of each value.
      split: the examples it was measured on, such as ``"test"``.

    Example:
      >>> print(accuracy([0.90, 0.92], [0, 1], split="test"))
      accuracy (test): 91.00 ± 1.41 % (2 seeds)
    """
    return _metric("accuracy", values, seeds, split, True, FRACTION)


def loss(
    values: Sequence[float], seeds: Sequence[int], *, split: str, unit: str = "nats"
) -> Metric:
    """Make a metric of losses, of which less is better; otherwise as ``accuracy``."""
    return _metric("loss", values, seeds, split, False, unit)


def perplexity(values: Sequence[float], seeds: Sequence[int], *, split: str) -> Metric:
    """Make a metric of perplexities, of which less is better; else as ``accuracy``."""
    return _metric("perplexity", values, seeds, split, False, "")


def bits_per_character(
    values: Sequence[float], seeds: Sequence[int], *, split: str
) -> Metric:
    """Make a metric of bits a character: less is better; otherwise as ``accuracy``."""
    return _metric("bits per character", values, seeds, split, False, "bits")


def _metric(name: str, values: Any, seeds: Any, split: str, up: bool, unit: str) -> Any:
    return Metric(
        name=name,
        values=values,
        seeds=seeds,
        split=split,
        higher_is_better=up,
        unit=unit,
    )
