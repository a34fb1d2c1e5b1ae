# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, and the same as plain data."""

from __future__ import annotations

import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from jaxcompress import report

from ..data import Dataset
from ._config import Config

Records = dict[str, list[report.Record]]


def table(config: Config, dataset: Dataset, records: Records) -> Table:
    """One line a row of the study, means over the seeds."""
    result = Table(
        title=f"{config.model} on {config.data}, {len(dataset.test):,} test examples, "
        f"{config.seeds} seed{'s' if config.seeds > 1 else ''}",
        caption="ratio: float32 weights / file. bits/w: file / weights of the row's "
        "network; bound: order-0 entropy of what is stored. All rows compute in floats: "
        "smaller, not faster.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    result.add_column("", no_wrap=True)
    for name in (
        "accuracy %",
        "change",
        "bytes",
        "ratio",
        "bits/w",
        "bound",
        "trained",
    ):
        result.add_column(name, justify="right", no_wrap=True)
    for name, row in rows(records).items():
        spread = "" if row["spread"] is None else f" ± {100 * row['spread']:.2f}"
        seconds = row["training_seconds"]
        result.add_row(
            name,
            f"{100 * row['accuracy']:.2f}{spread}",
            "" if name == "dense" else f"{100 * row['against_dense']:+.2f}",
            f"{row['file_bytes']:,.0f}",
            f"{row['ratio']:.1f}x",
            f"{row['bits_per_param']:.3f}",
            f"{8 * row['bound_bytes'] / row['params']:.3f}",
            "" if seconds is None else f"{seconds:.1f} s",
        )
    return result


def rows(records: Records) -> dict[str, dict[str, Any]]:
    """Means over the seeds, a dict a row. The ratio of the control is to the full net."""
    dense = records["dense"]
    return {name: _row(row, dense) for name, row in records.items()}


def summary(
    config: Config, dataset: Dataset, records: Records, seconds: float
) -> dict[str, Any]:
    """Everything there is to know about the run, as JSON can hold it."""
    return {
        "config": dataclasses.asdict(config),
        "data": {
            "name": dataset.name,
            "source": Path(dataset.source).name,
            "license": dataset.license,
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
        "seconds_of_this_process": seconds,
        "rows": rows(records),
        "records": {
            name: [json.loads(record.to_json()) for record in row]
            for name, row in records.items()
        },
    }


def _row(row: list[report.Record], dense: list[report.Record]) -> dict[str, Any]:
    accuracies = [_known(r.accuracy).mean for r in row]
    baseline = [_known(r.accuracy).mean for r in dense]
    sizes = [_known(r.size) for r in row]
    full = _known(dense[0].size).float32_bytes
    seconds = [r.training_seconds for r in row if r.training_seconds is not None]
    file_bytes = statistics.fmean(s.file_bytes for s in sizes)
    pairs = zip(accuracies, baseline, strict=True)
    return {
        "accuracy": statistics.fmean(accuracies),
        "spread": statistics.stdev(accuracies) if len(row) > 1 else None,
        "against_dense": statistics.fmean(a - b for a, b in pairs),
        "file_bytes": file_bytes,
        "largest_file_bytes": max(s.file_bytes for s in sizes),
        "ratio": full / file_bytes,
        "bits_per_param": 8 * file_bytes / sizes[0].params,
        "bound_bytes": statistics.fmean(s.bound_bytes for s in sizes),
        "nonzeros": statistics.fmean(s.nonzeros for s in sizes),
        "params": sizes[0].params,
        "latency_seconds": min(_known(r.latency).median_seconds for r in row),
        "training_seconds": statistics.fmean(seconds) if seconds else None,
    }


def _known(value: Any) -> Any:
    if value is None:
        raise ValueError("a record of this study lacks a measurement.")
    return value
