# SPDX-License-Identifier: Apache-2.0
"""When a row is better than the document's: each part of a row, judged over the seeds."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from typing import Literal

from jaxcompress import report

Status = Literal["better", "open", "not better", "given"]
_OURS, _DOCUMENT = "ours", "document"


@dataclasses.dataclass(frozen=True)
class Judged:
    """The verdict on one part of a row.

    Attributes:
      status: ``"better"``, ``"not better"``, ``"open"`` where the seeds cannot tell, or
        ``"given"`` where the document says nothing to compare with.
      why: what decided it, or why nothing did, as a sentence.
    """

    status: Status
    why: str


def loss(
    before: report.Metric,
    after: report.Metric,
    allowed: float,
    *,
    own: bool = False,
) -> Judged:
    """Judge whether less accuracy is lost than the document loses.

    A network and what it is compressed to have the same seed, so what each seed loses is
    compared with what the document loses.

    Args:
      before: accuracy of the original.
      after: accuracy of the compressed network, with the same seeds.
      allowed: what the document loses, as a fraction; negative for a gain.
      own: whether that is a limit of ours, and no figure of the document.
    """
    lost = before.mean - after.mean
    limit = (
        f"the limit is {100 * allowed:.2f}" if own else f"the document {_lost(allowed)}"
    )
    text = f"{_lost(lost)} points, {limit}"
    losses = [x - y for x, y in zip(before.values, after.values, strict=True)]
    return _decided(losses, allowed, text, higher=False)


def ratio(
    before: Sequence[float],
    after: Sequence[float],
    wanted: float,
    *,
    counted: bool,
    what: str,
) -> Judged:
    """Judge whether something gets smaller by a larger factor than in the document.

    Args:
      before: of the original, for each seed.
      after: of the compressed network.
      wanted: the document's factor.
      counted: whether it is counted, such as bytes: then every seed has to be better.
        Of what is measured, such as seconds, the factors are compared as losses are.
      what: what gets smaller, in words.
    """
    ratios = [x / y for x, y in zip(before, after, strict=True)]
    ours = sum(before) / sum(after)
    text = f"{what} {times(ours)} smaller, the document {times(wanted)}"
    if counted:
        if min(ratios) > wanted:
            return Judged("better", f"{text}.")
        if max(ratios) <= wanted:
            return Judged("not better", f"{text}.")
        spread = f"{times(min(ratios))} to {times(max(ratios))}"
        return Judged("open", f"{text}; the seeds give {spread}.")
    return _decided(ratios, wanted, text, higher=True)


def together(parts: Sequence[Judged]) -> Status:
    """Return the verdict on a row: better if each of its parts is."""
    found = [part.status for part in parts if part.status != "given"]
    for status in ("not better", "open"):
        if status in found:
            return status
    return "better" if found else "given"


def times(factor: float) -> str:
    """Format a factor."""
    return f"{factor:.1f}x" if factor >= 2 else f"{factor:.2f}x"


def _lost(fraction: float) -> str:
    points = round(100 * fraction, 2)
    return f"{'gains' if points < 0 else 'loses'} {abs(points):.2f}"


def _decided(
    ours: Sequence[float], figure: float, text: str, *, higher: bool
) -> Judged:
    """Compare a value for each seed with the document's figure, by Welch's test.

    The figure has no spread, so the test is Student's for one sample.
    """
    ahead = (statistics.fmean(ours) > figure) == higher
    if len(ours) > 1 and len(set(ours)) == 1:  # then there is no spread to test against
        return Judged("better" if ahead else "not better", f"{text}.")
    here = report.Provenance(versions={}, device="", commit=None)

    def record(name: str, values: Sequence[float]) -> report.Record:
        metric = report.Metric(
            name="value",
            values=values,
            seeds=range(len(values)),
            split="",
            higher_is_better=higher,
        )
        return report.Record(name=name, provenance=here, metrics=[metric])

    figures = [figure] * len(ours)
    verdict = report.compare(record(_DOCUMENT, figures), record(_OURS, ours), "value")
    if verdict.better is not None:
        status = "better" if verdict.better == _OURS else "not better"
        return Judged(status, f"{text}.")
    side = "better" if ahead else "not better"
    reason = verdict.reason
    if len(ours) == 1:
        reason, _, _ = reason.partition(":")
    return Judged("open", f"{text}: {side} on average, but {reason}.")
