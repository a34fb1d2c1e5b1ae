# SPDX-License-Identifier: Apache-2.0
"""Scales: from numbers to pixels, with ticks at round numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

_LOGARITHMIC_FROM = 8  # largest divided by smallest
_FEW_DECADES = 300
_SMALLEST, _LARGEST = 1e-300, 1e300


@dataclasses.dataclass(frozen=True)
class Scale:
    """A linear or logarithmic scale.

    Attributes:
      low: number at ``start``.
      high: number at ``stop``.
      start: pixel.
      stop: pixel.
      logarithmic: whether ratios are distances.
    """

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a number."""
        low, high, value = map(self._unit, (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + share * (self.stop - self.start)

    def _unit(self, value: float) -> float:
        return math.log10(value) if self.logarithmic else value

    def ticks(self) -> list[float]:
        """Return round numbers within the scale."""
        if not self.logarithmic:
            return _linear_ticks(self.low, self.high)
        decades = range(
            math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1
        )
        steps = (1, 2, 5) if self.high / self.low <= _FEW_DECADES else (1,)
        every = max(1, len(decades) // 8)
        marks = [s * 10.0**d for d in decades[::every] for s in steps]
        return [mark for mark in marks if self.low <= mark <= self.high]


def scale_of(values: Sequence[float], start: float, stop: float, *, log: bool) -> Scale:
    """Make a scale that shows all values, with room around them.

    Args:
      values: finite numbers, at least one.
      start: pixel of the low end.
      stop: pixel of the high end.
      log: whether the scale may be logarithmic: it is, where the values span much.
    """
    low, high = min(values), max(values)
    if log and low > 0 and _LOGARITHMIC_FROM <= high / low < math.inf:
        room = (high / low) ** 0.08
        return Scale(low / room, high * room, start, stop, logarithmic=True)
    room = 0.1 * (high - low) or 0.1 * abs(high)
    if not _SMALLEST < room < _LARGEST:  # too close or too far apart for arithmetic
        room = 1.0
    return Scale(low - room, high + room, start, stop)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next((unit * m for m in (1, 2, 2.5, 5) if unit * m >= rough), 10 * unit)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [i * step for i in range(first, last + 1)]
