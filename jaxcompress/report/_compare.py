# SPDX-License-Identifier: Apache-2.0
"""Which of two models is better on a metric: a verdict, or why there is none."""

from __future__ import annotations

import dataclasses
import math

from ._metric import Metric, seeds_text
from ._record import Record

_LEVEL = 0.05
_POWER = 0.8
_MOST_SEEDS = 100_000
TEST = "Welch's t-test, two-sided, 5 % level"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of ``compare``; prints as a few lines.

    Attributes:
      better: name of the better model; None if the verdict is withheld.
      reason: why the verdict is what it is.
      measured: what was compared, in words.
      difference: mean of the second model minus mean of the first.
      p_value: of the test; None if there was nothing to test.
      seeds_needed: seeds for each model with which the test would find a difference as
        large as the measured one in four of five repetitions, if the spreads are as
        measured; None if decided, or if nothing can be said.
      test: name of the test.
      notes: what else differs between the two records.
    """

    better: str | None
    reason: str
    measured: str
    difference: float
    p_value: float | None
    seeds_needed: int | None
    test: str = TEST
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        verdict = f"{self.better} is better" if self.better else "no verdict"
        notes = (f"note: {note}" for note in self.notes)
        return "\n".join([f"{verdict}: {self.reason}", self.measured, *notes])


def compare(
    a: Record, b: Record, metric: str = "accuracy", *, split: str | None = None
) -> Verdict:
    """Say which of two models is better on a metric, if their seeds can tell.

    The test is Welch's, which allows for different spreads. It takes the seeds of the two
    models as independent of each other; where the same seeds mean the same examples and
    initial values, it rather withholds a verdict than gives a wrong one.

    Args:
      a: record of the first model.
      b: record of the second model.
      metric: name of the metric.
      split: the split that it was measured on; None if each record has only one.

    Raises:
      KeyError: if a record lacks the metric, or has it for several splits.
      ValueError: if split, unit or direction of the two metrics differ.

    Example:
      >>> from jaxcompress import report
      >>> def record(name, values):
      ...     accuracy = report.accuracy(values, [0, 1], split="test")
      ...     here = report.provenance()
      ...     return report.Record(name=name, provenance=here, metrics=[accuracy])
      >>> verdict = compare(record("a", [0.90, 0.92]), record("b", [0.91, 0.94]))
      >>> verdict.better, verdict.seeds_needed
      (None, 24)
    """
    first, second = a.metric(metric, split), b.metric(metric, split)
    for what in ("split", "unit", "higher_is_better"):
        x, y = getattr(first, what), getattr(second, what)
        if x != y:
            raise ValueError(
                f"{metric!r} of {a.name!r} and {b.name!r} must have the same {what}, got "
                f"{x!r} and {y!r}: their values cannot be compared."
            )
    return dataclasses.replace(_decide(a, b, first, second), notes=_notes(a, b))


def _decide(a: Record, b: Record, first: Metric, second: Metric) -> Verdict:
    difference = second.mean - first.mean
    x, y = (f"{m.summary()}, {seeds_text(len(m.seeds))}" for m in (first, second))
    measured = f"{first.name} ({first.split}): {a.name} {x}; {b.name} {y}"

    def withheld(why: str, p: float | None = None, seeds: int | None = None) -> Verdict:
        return Verdict(
            better=None,
            reason=why,
            measured=measured,
            difference=difference,
            p_value=p,
            seeds_needed=seeds,
        )

    if first.spread is None or second.spread is None:
        return withheld(
            "one seed shows no spread: it takes 2 or more seeds for each model"
        )
    if first.spread == second.spread == 0:
        return withheld(
            "the values of all seeds are equal, so there is no spread to test against; "
            "did the seeds change anything?"
        )
    p = _p_value(difference, first, second)
    if p >= _LEVEL:
        seeds = _seeds_needed(abs(difference), first.spread, second.spread)
        more = (
            "no number of seeds would decide it"
            if seeds is None
            else f"about {seeds} seeds for each would decide it"
        )
        return withheld(f"the spreads overlap (p = {p:.2g}, {TEST}); {more}", p, seeds)
    is_second = (difference > 0) == first.higher_is_better
    signed = first.show_difference(difference)
    return Verdict(
        better=b.name if is_second else a.name,
        reason=f"the difference is {signed} (p = {p:.2g}, {TEST})",
        measured=measured,
        difference=difference,
        p_value=p,
        seeds_needed=None,
    )


def _p_value(difference: float, first: Metric, second: Metric) -> float:
    from scipy.special import stdtr

    error, freedom = _welch(
        first.spread or 0.0, len(first.seeds), second.spread or 0.0, len(second.seeds)
    )
    return float(2 * stdtr(freedom, -abs(difference) / error))


def _welch(s: float, n: int, t: float, m: int) -> tuple[float, float]:
    """Return the standard error of a difference, and its degrees of freedom."""
    # Only the ratio of the spreads counts, so that tiny ones do not vanish when squared.
    scale = max(s, t)
    x, y = (s / scale) ** 2 / n, (t / scale) ** 2 / m
    freedom = (x + y) ** 2 / (x**2 / (n - 1) + y**2 / (m - 1))
    return scale * math.sqrt(x + y), freedom


def _seeds_needed(difference: float, s: float, t: float) -> int | None:
    """Return the seeds that find such a difference with the usual power."""
    from scipy.special import stdtrit

    def decides(n: int) -> bool:
        error, freedom = _welch(s, n, t, n)
        needed = stdtrit(freedom, 1 - _LEVEL / 2) + stdtrit(freedom, _POWER)
        return difference / error >= needed

    if not decides(_MOST_SEEDS):
        return None
    low, high = 1, _MOST_SEEDS  # the largest that does not, the smallest that does
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decides(middle) else (middle, high)
    return high


def _notes(a: Record, b: Record) -> tuple[str, ...]:
    x, y = a.provenance, b.provenance
    notes = [
        f"{what}s differ: {getattr(x, what)} and {getattr(y, what)}"
        for what in ("device", "commit")
        if getattr(x, what) != getattr(y, what)
    ]
    names = sorted(x.versions.keys() | y.versions.keys())
    if names := [n for n in names if x.versions.get(n) != y.versions.get(n)]:
        notes.append(f"versions differ: {', '.join(names)}")
    return tuple(notes)
