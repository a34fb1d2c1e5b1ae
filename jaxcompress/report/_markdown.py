# SPDX-License-Identifier: Apache-2.0
"""Format records as a Markdown table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ._latency import Latency
from ._record import Accuracy, Energy, Record
from ._size import Size

_MISSING = "–"


def markdown(records: Sequence[Record]) -> str:
    """Format records as a Markdown table, to compare models side by side.

    Each record is a row. Columns are the fields that at least one record has. Energies
    measured by different methods go in different columns. The output is deterministic.

    Args:
      records: records in the order of the rows.

    Raises:
      ValueError: if ``records`` is empty.
    """
    if not records:
        raise ValueError("records must not be empty: there are no records to show.")
    columns: dict[str, list[str]] = {"model": [_escape(r.name) for r in records]}
    accuracies = [r.accuracy for r in records]
    columns |= _columns(accuracies, {"accuracy": _accuracy})
    columns |= _columns([r.size for r in records], _SIZE)
    columns |= _columns([r.latency for r in records], _LATENCY)
    seconds = [r.training_seconds for r in records]
    columns |= _columns(seconds, {"training": lambda s: f"{s:.1f} s"})
    columns |= _energies([r.energy for r in records])
    if any(r.simulated for r in records):
        note = "simulated, no speed-up expected"
        columns["note"] = [note if r.simulated else "" for r in records]
    rows = [list(columns), ["---"] * len(columns), *zip(*columns.values(), strict=True)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _columns(
    parts: Sequence[Any], formats: dict[str, Callable[[Any], str]]
) -> dict[str, list[str]]:
    if all(part is None for part in parts):
        return {}
    return {
        title: [_MISSING if part is None else show(part) for part in parts]
        for title, show in formats.items()
    }


def _energies(energies: Sequence[Energy]) -> dict[str, list[str]]:
    methods = sorted({e.method for e in energies if e.joules is not None})
    if not methods:
        return {"energy": [str(e) for e in energies]}
    return {
        f"energy ({method})": [
            str(e) if e.method in (method, "unavailable") else _MISSING
            for e in energies
        ]
        for method in methods
    }


def _accuracy(accuracy: Accuracy) -> str:
    count = len(accuracy.seeds)
    if accuracy.spread is None:
        return f"{accuracy.mean:.2%} (1 seed)"
    return f"{accuracy.mean:.2%} ± {100 * accuracy.spread:.2f} ({count} seeds)"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}"


_SIZE: dict[str, Callable[[Size], str]] = {
    "params": lambda s: f"{s.params:,}",
    "non-zeros": lambda s: f"{s.nonzeros:,}",
    "file bytes": lambda s: f"{s.file_bytes:,}",
    "overhead": lambda s: f"{s.overhead_bytes:,}",
    "order-0 bound": lambda s: f"{s.bound_bytes:,.0f}",
    "float32 / file": lambda s: f"{s.float32_bytes / s.file_bytes:.1f}x",
    "bfloat16 / file": lambda s: f"{s.bfloat16_bytes / s.file_bytes:.1f}x",
    "bits/param": lambda s: _number(s.bits_per_param),
    "bits/weight": lambda s: _number(s.bits_per_weight),
}

_LATENCY: dict[str, Callable[[Latency], str]] = {
    "median": lambda t: f"{1e3 * t.median_seconds:.3f} ms",
    "p90": lambda t: f"{1e3 * t.p90_seconds:.3f} ms",
    "compile": lambda t: (
        "before" if t.compile_seconds is None else f"{t.compile_seconds:.2f} s"
    ),
    "device": lambda t: _escape(t.device),
}


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())
