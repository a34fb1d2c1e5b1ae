# SPDX-License-Identifier: Apache-2.0
"""Verdicts: what is clever beside the trivial way to the same end, in words."""

from __future__ import annotations

import collections
import dataclasses
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxcompress import report

from ._records import values

WIDTH = 120  # of the lines of a README
# The same for both sides of a comparison: their numbers come from one file.
HERE = report.Provenance(versions={}, device="", commit=None)


@dataclasses.dataclass(frozen=True)
class Measure:
    """What of the records is compared.

    Attributes:
      field: name of the field.
      unit: of its values; "fraction" is shown as percent.
      higher_is_better: False for a loss.
    """

    field: str = "accuracy"
    unit: str = "fraction"
    higher_is_better: bool = True


@dataclasses.dataclass(frozen=True)
class Claim:
    """Something clever that should be better than a trivial way.

    Attributes:
      row: the clever way, in words.
      bar: the trivial way, in words.
      cases: where they are compared, ``"at 90 %"``, and the records of both: one per seed,
        none of what was not run. A claim with one case may name it ``""``.
      measure: what is compared.
    """

    row: str
    bar: str
    cases: Mapping[str, tuple[Sequence[Any], Sequence[Any]]]
    measure: Measure = Measure()


def verdicts(claims: Iterable[Claim]) -> str:
    """Say of each claim whether it holds, as a list in Markdown.

    Args:
      claims: what is compared with what.

    Returns:
      A line that counts the outcomes, and a sentence for each claim: the clever way is
      better, or the trivial way wins, or there is no verdict, with the number of seeds
      that would give one.
    """
    counts: collections.Counter[str] = collections.Counter()
    lines = []
    for claim in claims:
        outcomes: dict[str, list[str]] = {}
        for place, (row, bar) in claim.cases.items():
            outcome, shown = _outcome(row, bar, claim.measure)
            counts[outcome.partition(" with ")[0]] += 1
            shown = f"{place} ({shown})" if shown else place
            outcomes.setdefault(outcome, []).append(shown.strip())
        lines.append(_wrapped(f"- {_sentence(claim, outcomes)}"))
    return "\n".join([_wrapped(_counted(counts)), "", *lines])


BETTER = "is better than {}"
WORSE = "is not better than {}: **the trivial way wins**"
OPEN = "cannot be told from {}"
NOT_RUN = "has not been run beside {} (the study has both rows)"


def _outcome(
    row: Sequence[Any], bar: Sequence[Any], measure: Measure
) -> tuple[str, str]:
    """Which of the four it is, and the numbers."""
    if not row or not bar:
        return NOT_RUN, ""
    (metric, a), (other, b) = (_record(n, g, measure) for n, g in enumerate((row, bar)))
    verdict = report.compare(a, b)
    first = metric.summary().removesuffix(" %").removesuffix(f" {metric.unit}")
    shown = f"{first} against {other.summary()}"
    if verdict.better is not None:
        return (BETTER if verdict.better == a.name else WORSE), shown
    if verdict.p_value is None:
        return OPEN, f"{shown}; {verdict.reason}"
    seeds = min(len(metric.seeds), len(other.seeds))
    needed = verdict.seeds_needed
    more = "no number" if needed is None else f"about {needed}"
    return f"{OPEN} with {seeds} seeds", f"{shown}; {more} would decide"


def _record(
    number: int, group: Sequence[Any], measure: Measure
) -> tuple[report.Metric, report.Record]:
    measured = [r for r in group if getattr(r, measure.field) is not None]
    metric = report.Metric(
        name="accuracy",
        values=values(measured, measure.field),
        seeds=[record.seed for record in measured],
        split="test",
        higher_is_better=measure.higher_is_better,
        unit=measure.unit,
    )
    name = ("row", "bar")[number]
    return metric, report.Record(name=name, provenance=HERE, metrics=[metric])


def _sentence(claim: Claim, outcomes: Mapping[str, Sequence[str]]) -> str:
    names = [f"*{claim.bar}*", *["it"] * len(outcomes)]
    parts = [
        f"{outcome.format(name)} {', '.join(places)}".strip()
        for name, (outcome, places) in zip(names, outcomes.items(), strict=False)
    ]
    return f"*{claim.row}* {'; '.join(parts)}."


def _counted(counts: Mapping[str, int]) -> str:
    known = {
        BETTER: "the clever way is better in {}",
        WORSE: "the trivial way in {}",
        OPEN: "{} cannot be told apart with these seeds",
        NOT_RUN: "{} have not been run",
    }
    each = [text.format(counts.get(key, 0)) for key, text in known.items()]
    each = each if counts.get(NOT_RUN) else each[:-1]
    ending = "Two-sided Welch's t-test at the 5 % level, each comparison by itself:"
    return f"Of {sum(counts.values())} comparisons, {', '.join(each)}. {ending}"


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text,
        WIDTH,
        subsequent_indent="  " if text.startswith("- ") else "",
        break_on_hyphens=False,
        break_long_words=False,
    )
