# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, the same as plain data, and the picture."""

from __future__ import annotations

import dataclasses
import json
import operator
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from jaxcompress import report

from .. import common
from ..data import Dataset
from ._config import Config
from ._stages import stages

PACKED = "packed"
CONTROL = "small dense"
COLUMNS = (
    "accuracy %", "change", "validation", "bytes", "ratio", "bits/w", "bound", "trained"
)  # fmt: skip


def table(config: Config, examples: int, records: Sequence[report.Record]) -> Table:
    """One line a row of the study, means over the seeds."""
    plural = "s" if config.seeds > 1 else ""
    return common.for_terminal(
        ["", *COLUMNS],
        [[name, *_texts(name, row)] for name, row in rows(records).items()],
        title=f"{config.model} on {config.data}, {examples:,} test examples, "
        f"{config.seeds} seed{plural}",
        caption="change: against dense; validation: the same on the split where settings "
        "are chosen. ratio: float32 weights / file. bits/w: file / weights of the row's "
        "network; bound: order-0 entropy of what is stored. All rows compute in floats: "
        "smaller, not faster.",
    )


def _texts(name: str, row: Mapping[str, Any]) -> list[str]:
    spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.2f}"
    seconds = row["training_seconds"]
    return [
        f"{100 * row['accuracy']:.2f}{spread}",
        "" if name == "dense" else f"{100 * row['against_dense']:+.2f}",
        "" if name == "dense" else f"{100 * row['validation_against_dense']:+.2f}",
        f"{row['file_bytes']:,.0f}",
        f"{row['ratio']:.1f}x",
        f"{row['bits_per_param']:.3f}",
        f"{8 * row['bound_bytes'] / row['params']:.3f}",
        "" if seconds is None else f"{seconds:.1f} s",
    ]


def rows(records: Sequence[report.Record]) -> dict[str, dict[str, Any]]:
    """Means over the seeds, a dict a row. The ratio of the control is to the full net."""
    groups = common.grouped(records, "name")
    return {name: _row(group, groups["dense"]) for name, group in groups.items()}


def _row(row: list[report.Record], dense: list[report.Record]) -> dict[str, Any]:
    accuracies, baseline = (_accuracies_of(group, "test") for group in (row, dense))
    sizes, latencies = _all(row, "size"), _all(row, "latency")
    file_bytes = statistics.fmean(s.file_bytes for s in sizes)
    accuracy, spread = common.mean_and_spread(accuracies)
    validation = [_accuracies_of(group, "validation") for group in (row, dense)]
    return {
        "accuracy": accuracy,
        "spread": spread,
        "against_dense": statistics.fmean(map(operator.sub, accuracies, baseline)),
        "validation": statistics.fmean(validation[0]),
        "validation_against_dense": statistics.fmean(map(operator.sub, *validation)),
        "file_bytes": file_bytes,
        "largest_file_bytes": max(s.file_bytes for s in sizes),
        "ratio": _all(dense, "size")[0].float32_bytes / file_bytes,
        "bits_per_param": 8 * file_bytes / sizes[0].params,
        "bound_bytes": statistics.fmean(s.bound_bytes for s in sizes),
        "nonzeros": statistics.fmean(s.nonzeros for s in sizes),
        "params": sizes[0].params,
        "latency_seconds": min(latency.median_seconds for latency in latencies),
        "training_seconds": common.mean(row, "training_seconds"),
    }


def _accuracies_of(group: Sequence[report.Record], split: str) -> list[float]:
    return [record.metric("accuracy", split).mean for record in group]


def _all(group: Sequence[report.Record], field: str) -> list[Any]:
    """A measurement of every record."""
    measured = common.values(group, field)
    if len(measured) < len(group):
        raise ValueError(f"a record of this study lacks its {field}.")
    return measured


@dataclasses.dataclass(frozen=True)
class _Tested:
    seed: int
    accuracy: float


def claims(records: Sequence[report.Record]) -> Iterator[common.Claim]:
    """What should be better than the trivial ways to a file of its size."""
    tested = {
        name: [
            _Tested(metric.seeds[0], metric.mean)
            for metric in (record.metric("accuracy", "test") for record in group)
        ]
        for name, group in common.grouped(records, "name").items()
    }

    def claim(row: str, clever: str, bar: str, trivial: str) -> common.Claim:
        pair = (tested.get(clever, []), tested.get(trivial, []))
        return common.Claim(row, bar, {"": pair})

    yield claim("by rate", "by rate", "a small dense network of no more bytes", CONTROL)
    yield claim(
        "distilled", "+ distilled", "labels alone at equal steps", "+ quantized"
    )
    yield claim("by rate", "by rate", "settings by hand, a larger file", "+ distilled")


def summary(data: Dataset, records: Sequence[report.Record]) -> dict[str, Any]:
    """Everything there is to know about the run, as JSON can hold it."""
    return {
        "data": {
            "name": data.name,
            "source": Path(data.source).name,
            "license": data.license,
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
        },
        "rows": rows(records),
        "records": {
            name: [json.loads(record.to_json()) for record in group]
            for name, group in common.grouped(records, "name").items()
        },
    }


def draw(config: Config, records: Sequence[report.Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against bytes, and the bytes of the file."""
    with common.figure(path, size=(11, 4.2), panels=2, width_ratios=[1, 1]) as axes:
        curves = {s.name: s.curve for s in stages(config, 100) if s.curve}
        _accuracies(axes[0], rows(records), curves if config.curve else {})
        size = next(record.size for record in records if record.name == PACKED)
        assert size is not None
        _bytes(axes[1], size)


def _accuracies(
    axis: Any, rows: Mapping[str, Mapping[str, Any]], curves: Mapping[str, str]
) -> None:
    for curve in dict.fromkeys(curves.values()):
        points = [row for name, row in rows.items() if curves.get(name) == curve]
        _points(axis, sorted(points, key=lambda row: row["file_bytes"]), "o-", curve)
    for name, row in rows.items():
        if name not in curves:
            style = {"dense": "s", CONTROL: "x", PACKED: "*"}.get(name, "o")
            _points(axis, [row], style, f"{name} ({row['ratio']:.0f}x)")
    axis.set_xscale("log")
    axis.set(xlabel="file, kB (log scale)", ylabel="test accuracy, %")
    title = "accuracy against bytes, mean and spread over seeds"
    common.finish(axis, title, legend="best")


def _points(axis: Any, rows: Sequence[Any], style: str, label: str) -> None:
    axis.errorbar(
        [row["file_bytes"] / 1000 for row in rows],
        [100 * row["accuracy"] for row in rows],
        yerr=[100 * (row["spread"] or 0.0) for row in rows],
        fmt=style,
        markersize=12 if style == "*" else 6,
        capsize=3,
        label=label,
    )


def _bytes(axis: Any, size: report.Size) -> None:
    leaves = sorted(size.leaves, key=lambda leaf: leaf.nbytes)
    labels = [
        f"{leaf.path}\n{leaf.nonzeros:,} of {leaf.params:,} kept" for leaf in leaves
    ]
    stored = [*(leaf.nbytes for leaf in leaves), size.overhead_bytes]
    axis.barh(
        [*labels, "names, manifest"], stored, color="tab:blue", label="in the file"
    )
    axis.barh(
        labels, [leaf.bound_bytes for leaf in leaves], fill=False, edgecolor="black",
        label="order-0 bound",
    )  # fmt: skip
    axis.set(xlabel="bytes (seed 0)")
    axis.set_title(f"the packed file, {size.file_bytes:,} bytes", fontsize=10)
    axis.tick_params(axis="y", labelsize=7)
    axis.legend(fontsize=8, loc="lower right")
