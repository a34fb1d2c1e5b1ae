# SPDX-License-Identifier: Apache-2.0
"""Columns of a table of records: what Markdown and HTML show, cell by cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ._latency import Latency
from ._metric import Metric, seeds_text
from ._record import Record
from ._size import Size
from ._text import MISSING, count_text, joules_text, milliseconds_text

_MAIN = (
    *("file bytes", "float32 / file", "median", "energy"),
    "energy, full gain",
)


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
      text: what is shown.
      value: what rows are sorted by; None sorts last.
      remark: what the page says beside the text.
    """

    text: str = MISSING
    value: float | str | None = None
    remark: str = ""


@dataclasses.dataclass(frozen=True)
class Column:
    """One column; only values that can be compared stand in the same one.

    Attributes:
      title: what it shows.
      detail: the conditions of the measurement: split, runtime, device, method.
      cells: one per record.
      higher_is_better: direction; None if there is none.
      group: what it is about.
    """

    title: str
    detail: str
    cells: tuple[Cell, ...]
    higher_is_better: bool | None = False
    group: str = ""

    @property
    def is_main(self) -> bool:
        """Whether it belongs into a summary."""
        if self.title == "energy" and all(cell.value is None for cell in self.cells):
            return False
        return self.group in ("", "quality") or self.title in _MAIN


def columns(records: Sequence[Record]) -> list[Column]:
    """Return the columns that at least one record has a value in."""
    parts = {
        "quality": _metrics,
        "size": _sizes,
        "work": _counts,
        "latency": _latencies,
        "memory": _memories,
        "energy": _energies,
        "training": _training,
        "note": _notes,
    }
    names = tuple(
        Cell(record.name, record.name, "simulated" if record.simulated else "")
        for record in records
    )
    return [
        Column("model", "", names, None),
        *(
            dataclasses.replace(column, group=group)
            for group, part in parts.items()
            for column in part(records)
        ),
    ]


def conditions(record: Record) -> str | None:
    """Describe what a latency depends on besides the model; None without latency."""
    if record.latency is None:
        return None
    timed = record.latency
    threads = None if timed.threads is None else f"{timed.threads} threads"
    batch = None if record.batch is None else f"batch {record.batch}"
    parts = (timed.runtime, timed.device, threads, batch)
    return ", ".join(filter(None, parts))


def metric_keys(records: Sequence[Record]) -> list[tuple[str, str, str, bool]]:
    """Return name, split, unit and direction of the metrics, in order, without repeats."""
    return list(dict.fromkeys(_key(m) for record in records for m in record.metrics))


def metric_of(record: Record, key: tuple[str, str, str, bool]) -> Metric | None:
    """Return a record's metric with such a key."""
    return next((metric for metric in record.metrics if _key(metric) == key), None)


def _key(metric: Metric) -> tuple[str, str, str, bool]:
    return metric.name, metric.split, metric.unit, metric.higher_is_better


def _column(
    title: str,
    parts: Sequence[Any],
    value: Callable[[Any], float | str | None],
    text: Callable[[Any], str] = str,
    detail: str = "",
    *,
    better: bool | None = False,
) -> Iterator[Column]:
    """Make a column of one value per part; none if all parts are None."""
    cells = tuple(
        Cell() if part is None or value(part) is None else Cell(text(part), value(part))
        for part in parts
    )
    if any(cell.value is not None for cell in cells):
        yield Column(title, detail, cells, better)


def _metrics(records: Sequence[Record]) -> Iterator[Column]:
    for key in metric_keys(records):
        found = [metric_of(record, key) for record in records]
        numbers = {len(metric.seeds) for metric in found if metric is not None}
        name, detail, _, better = key
        text = _with_seeds
        if len(numbers) == 1:  # then it need not stand in every cell
            detail, text = f"{detail}, {seeds_text(*numbers)}", Metric.summary
        yield from _column(name, found, lambda m: m.mean, text, detail, better=better)


def _sizes(records: Sequence[Record]) -> Iterator[Column]:
    sizes = [record.size for record in records]
    shown: list[tuple[str, Callable[[Size], float | None], Callable[[Any], str]]] = [
        ("params", lambda s: s.params, count_text),
        ("non-zeros", lambda s: s.nonzeros, count_text),
        ("file bytes", lambda s: s.file_bytes, count_text),
        ("overhead", lambda s: s.overhead_bytes, count_text),
        ("order-0 bound", lambda s: s.bound_bytes, count_text),
        ("float32 / file", lambda s: s.float32_bytes / s.file_bytes, _times),
        ("bfloat16 / file", lambda s: s.bfloat16_bytes / s.file_bytes, _times),
        ("bits/param", lambda s: s.bits_per_param, "{:.3f}".format),
        ("bits/weight", lambda s: s.bits_per_weight, "{:.3f}".format),
    ]
    for title, value, text in shown:
        better = text is _times
        yield from _column(
            title, sizes, value, lambda s, v=value, t=text: t(v(s)), better=better
        )


def _counts(records: Sequence[Record]) -> Iterator[Column]:
    for batch in dict.fromkeys(r.batch for r in records if r.count is not None):
        counts = [r.count if r.batch == batch else None for r in records]
        detail = "one call" if batch is None else f"batch {batch}"
        for title, value in (
            ("MACs", lambda c: c.macs),
            ("MACs, not zero", lambda c: c.effective_macs),
            ("bit operations", lambda c: c.bit_ops),
        ):
            yield from _column(
                title, counts, value, lambda c, v=value: count_text(v(c)), detail
            )


def _latencies(records: Sequence[Record]) -> Iterator[Column]:
    for detail in dict.fromkeys(filter(None, map(conditions, records))):
        timed = [r.latency if conditions(r) == detail else None for r in records]
        yield from _column(
            "median",
            timed,
            lambda t: t.median_seconds,
            lambda t: milliseconds_text(t.median_seconds),
            detail,
        )
        yield from _column(
            "p90",
            timed,
            lambda t: t.p90_seconds,
            lambda t: milliseconds_text(t.p90_seconds),
            detail,
        )
        yield from _column("runs", timed, lambda t: t.runs, _runs, detail, better=None)
        yield from _column(
            "compile", timed, _compile_value, lambda t: t.compile_text, detail
        )
    timed = [r.latency for r in records]
    yield from _column(
        "computes in", timed, lambda t: t.dtype, lambda t: t.dtype, better=None
    )


def _memories(records: Sequence[Record]) -> Iterator[Column]:
    used = [record.memory for record in records]
    for method in dict.fromkeys(m.method for m in used if m is not None):
        yield from _column(
            "peak memory",
            [m if m is not None and m.method == method else None for m in used],
            lambda m: m.peak_bytes,
            lambda m: count_text(m.peak_bytes),
            method,
        )


def _energies(records: Sequence[Record]) -> Iterator[Column]:
    measured = [record.energy for record in records]
    sources = dict.fromkeys(e.source for e in measured if e.joules is not None)
    for source in sources or [""]:
        cells = tuple(
            Cell("unavailable")
            if e.joules is None
            else Cell(
                f"{joules_text(e.joules)} ± {joules_text(e.spread or 0)}", e.joules
            )
            if e.source == source
            else Cell()
            for e in measured
        )
        yield Column("energy", source and f"counter: {source}", cells)
    models = [record.energy_model for record in records]
    for title, value in (
        ("energy, no gain", lambda m: m.no_gain.joules),
        ("energy, full gain", lambda m: m.full_gain.joules),
    ):
        text, detail = (lambda m, v=value: joules_text(v(m))), "operation model"
        yield from _column(title, models, value, text, detail)


def _training(records: Sequence[Record]) -> Iterator[Column]:
    seconds = [record.training_seconds for record in records]
    yield from _column("training", seconds, lambda s: s, lambda s: f"{s:.1f} s")


def _notes(records: Sequence[Record]) -> Iterator[Column]:
    """Say in words what the page says beside the name."""
    if any(record.simulated for record in records):
        note = Cell("simulated, no speed-up expected", "simulated")
        cells = tuple(note if r.simulated else Cell("", None) for r in records)
        yield Column("note", "", cells, None)


def _with_seeds(metric: Metric) -> str:
    return f"{metric.summary()} ({seeds_text(len(metric.seeds))})"


def _times(value: float) -> str:
    return f"{value:.1f}x"


def _runs(timed: Latency) -> str:
    return f"{timed.runs:,}"


def _compile_value(timed: Latency) -> float | str:
    return timed.compilation if timed.compile_seconds is None else timed.compile_seconds
