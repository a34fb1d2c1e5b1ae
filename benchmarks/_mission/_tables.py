# SPDX-License-Identifier: Apache-2.0
"""Rows of the ten tables, from the document's figures and our records."""

from __future__ import annotations

import collections
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxcompress import report

from . import _names, _rules
from ._document import TABLES, Claim, Measure, Table

Records = Mapping[str, Sequence[report.Record]]
"""Records by name, one for each seed."""

_WHAT = {
    "parameters": "the parameters that are not zero are",
    "bytes": "the file is",
    "latency": "the time of a call is",
    "energy": "the energy is",
    "training": "the time of training is",
}
_UNITS: Mapping[str, Sequence[tuple[float, str]]] = {
    "parameters": [(1e6, "M"), (1e3, "k"), (1, "")],
    "bytes": [(1e6, "MB"), (1e3, "kB"), (1, "B")],
    "latency": [(1, "s"), (1e-3, "ms"), (1e-6, "µs")],
    "energy": [(1, "J"), (1e-3, "mJ"), (1e-6, "µJ"), (1e-9, "nJ")],
    "training": [(1, "s")],
}
_COUNTED = ("parameters", "bytes")
_VALUE: Mapping[str, Callable[[report.Record], float | None]] = {
    "parameters": lambda r: r.size and r.size.nonzeros,
    "bytes": lambda r: r.size and r.size.file_bytes,
    "latency": lambda r: r.latency and r.latency.median_seconds,
    "energy": lambda r: r.energy_model and r.energy_model.no_gain.joules,
    "training": lambda r: r.training_seconds,
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the document and ours beside it.

    Attributes:
      name: what it is about.
      document: its figures.
      ours: ours.
      verdict: ``"better"``, ``"not better"``, ``"open"`` or ``"given"``.
      why: what decided it.
    """

    name: str
    document: str
    ours: str
    verdict: _rules.Status
    why: str


def by_name(records: Iterable[report.Record]) -> Records:
    """Sort records of several seeds by name."""
    found: dict[str, list[report.Record]] = collections.defaultdict(list)
    for record in records:
        found[record.name].append(record)
    return dict(found)


def made(records: Records) -> list[tuple[Table, list[Row]]]:
    """Return the tables with their rows."""
    return [
        (table, [row for claim in table.claims for row in rows(claim, records)])
        for table in TABLES
    ]


def rows(claim: Claim, records: Records) -> list[Row]:
    """Return the rows of a claim: one, or one for each runtime that is installed.

    Raises:
      KeyError: if a record is missing.
    """
    if not claim.runtime:
        return [_row(claim, records)]
    found = []
    for runtime in (*_names.RUNTIMES, _names.JAX):
        before = f"{claim.before} ({runtime})"
        if before not in records:
            continue
        after = claim.after
        if runtime == _names.JAX:  # which would only simulate integers
            after = [name.replace(_names.INT8, _names.NARROW) for name in after]
        there = dataclasses.replace(
            claim,
            row=f"{claim.row}, {runtime}",
            before=before,
            after=[f"{name} ({runtime})" for name in after],
        )
        found.append(_row(there, records))
    return found


def _row(claim: Claim, records: Records) -> Row:
    before = records[claim.before]
    after = _chosen(claim, records)
    ours, parts = [], []
    if claim.measure is not None:
        others = [records[name] for name in claim.after if len(claim.after) > 1]
        if others:
            least = min(_factor(claim.measure, before, other) for other in others)
            most = _factor(claim.measure, before, after)
            ours.append(f"{_rules.times(least)} to {_rules.times(most)}")
        ours.append(_change(claim.measure, before, after))
        if claim.ratio is not None:
            parts.append(_ratio(claim, before, after))
    first, last = _accuracy(before), _accuracy(after)
    lost = f" ({last.show_difference(last.mean - first.mean)})"
    if claim.before in claim.after:
        ours.append(last.summary())
    else:
        ours.append(f"{first.summary()} -> {last.summary()}{lost}")
    if claim.loss is not None:
        parts.append(_loss(claim, first, last))
    if claim.floor is not None:
        parts.append(_floor(claim.floor, last))
    ours += [text for m in claim.shown if (text := _shown(m, before, after, records))]
    why = " ".join(_sentence(part.why) for part in parts)
    if len(claim.after) > 1:
        why = f"{after[0].name}. {why}"
    return Row(
        name=claim.row,
        document=claim.document,
        ours="; ".join(ours),
        verdict=_rules.together(parts),
        why=f"{why} {_remark(claim, records, after)}".strip(),
    )


def _chosen(claim: Claim, records: Records) -> Sequence[report.Record]:
    """Return the smallest candidate that loses little on validation data with any seed."""
    if len(claim.after) == 1:
        return records[claim.after[0]]
    if claim.loss is None or claim.measure is None:
        raise ValueError(f"{claim.row!r} must have a loss and a measure to choose by.")
    before = _accuracy(records[claim.before], "validation").values
    measure, limit = claim.measure, claim.loss

    def order(records: Sequence[report.Record]) -> tuple[bool, float]:
        after = _accuracy(records, "validation").values
        lost = max(x - y for x, y in zip(before, after, strict=True))
        size = statistics.fmean(_values(measure, records))
        return lost > limit, lost if lost > limit else size

    return min((records[name] for name in claim.after), key=order)


def _accuracy(records: Sequence[report.Record], split: str = "test") -> report.Metric:
    found = [record.metric("accuracy", split) for record in records]
    return dataclasses.replace(
        found[0],
        values=[value for metric in found for value in metric.values],
        seeds=[seed for metric in found for seed in metric.seeds],
    )


def _values(measure: Measure, records: Sequence[report.Record]) -> list[float]:
    values = {record.name: _VALUE[measure](record) for record in records}
    if missing := [name for name, value in values.items() if value is None]:
        raise ValueError(f"{missing[0]!r} must have {measure}, but it has none.")
    return [float(_VALUE[measure](record) or 0) for record in records]


def _pair(
    measure: Measure, before: Sequence[report.Record], after: Sequence[report.Record]
) -> tuple[list[float], list[float]]:
    """Return what gets smaller, in the original and in the compressed network.

    An original's bytes are those of float32, without a header. Energies are both measured
    or both of the operation model.
    """
    if measure == "bytes":
        floats = [float(r.size.float32_bytes) for r in before if r.size is not None]
        return floats, _values(measure, after)
    if measure == "energy" and _is_counted([*before, *after]):
        return tuple([r.energy.joules or 0.0 for r in own] for own in (before, after))  # pyright: ignore[reportReturnType]
    return _values(measure, before), _values(measure, after)


def _is_counted(records: Sequence[report.Record]) -> bool:
    """Whether a hardware counter measured the energy of all of them."""
    return all(record.energy.joules is not None for record in records)


def _change(
    measure: Measure, before: Sequence[report.Record], after: Sequence[report.Record]
) -> str:
    x, y = _pair(measure, before, after)
    factor = _rules.times(_factor(measure, before, after))
    if measure == "energy" and not _is_counted([*before, *after]):
        factor += ", operation model"
    return f"{_text(measure, x)} -> {_text(measure, y)} ({factor})"


def _factor(
    measure: Measure, before: Sequence[report.Record], after: Sequence[report.Record]
) -> float:
    x, y = _pair(measure, before, after)
    return statistics.fmean(x) / statistics.fmean(y)


def _text(measure: Measure, values: Sequence[float]) -> str:
    value = statistics.fmean(values)
    units = _UNITS[measure]
    scale, unit = next((u for u in units if value >= u[0]), units[-1])
    return f"{value / scale:.3g} {unit}".strip()


def _ratio(claim: Claim, before: Any, after: Any) -> _rules.Judged:
    assert claim.measure is not None and claim.ratio is not None
    by_model = claim.measure == "energy" and not _is_counted([*before, *after])
    return _rules.ratio(
        *_pair(claim.measure, before, after),
        claim.ratio,
        counted=claim.measure in _COUNTED or by_model,
        what=_WHAT[claim.measure],
    )


def _loss(claim: Claim, first: report.Metric, last: report.Metric) -> _rules.Judged:
    assert claim.loss is not None
    return _rules.loss(first, last, claim.loss, own=not claim.document_loss)


def _floor(floor: float, last: report.Metric) -> _rules.Judged:
    document = dataclasses.replace(last, values=[floor] * len(last.values))
    judged = _rules.loss(document, last, 0.0)
    text = f"{last.summary()}, the document {100 * floor:g} %"
    reason = judged.why.partition(": ")[2]
    return dataclasses.replace(judged, why=f"{text}{': ' if reason else '.'}{reason}")


def _shown(measure: Measure, before: Any, after: Any, records: Records) -> str:
    """What else changes: in the file, or in each runtime that is installed."""
    if measure != "latency":
        return _change(measure, before, after)
    found = []
    for runtime in (*_names.RUNTIMES, _names.JAX):
        pair = [records.get(f"{r[0].name} ({runtime})") for r in (before, after)]
        if pair[0] and pair[1]:
            found.append(f"{_change(measure, pair[0], pair[1])} in {runtime}")
    return ", ".join(found)


def _remark(claim: Claim, records: Records, after: Sequence[report.Record]) -> str:
    """What else has to be said, as far as the records know it."""
    before = records[claim.before]
    if claim.loss is not None and claim.measure is None and "bytes" in claim.shown:
        smaller = _rules.times(_factor("bytes", before, after))
        return f"The file is {smaller} smaller; the document names no size."
    floats = claim.after[0].replace(_names.INT8, _names.NARROW)
    if claim.runtime and floats in records and floats not in claim.after:
        alone = _rules.times(_factor("latency", before, records[floats]))
        return f"Removing filters alone makes it {alone} smaller, the integers do the rest."
    if claim.on_top:
        base, all_ = (
            statistics.fmean(_values("training", r))
            for r in (before, records[claim.on_top])
        )
        return (
            f"Compressing after training costs instead of saving: {_names.SMALL} takes "
            f"another {100 * (all_ / base - 1):.0f} % of the training."
        )
    if claim.measure == "energy":
        energy = before[0].energy
        counter = f"Counter: {energy}. " if energy.joules is None else ""
        integers = records[claim.after[0].replace(_names.NARROW, _names.INT8)]
        full = [
            record.energy_model.full_gain.joules
            for record in (before[0], integers[0])
            if record.energy_model is not None
        ]
        return (
            f"{counter}With integers of 8 bits, on hardware that gains from every bit, the "
            f"model says {_rules.times(full[0] / full[-1])}."
        )
    if claim.teacher:
        teacher = _accuracy(records[claim.teacher]).mean
        missing = teacher - _accuracy(before).mean
        text = f"The student alone is {100 * missing:.2f} points below its teacher"
        too_little = claim.loss is not None and missing < -claim.loss
        return f"{text}{': there is no more to gain' if too_little else ''}."
    return ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
