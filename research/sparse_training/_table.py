# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, the same as plain data, and the picture."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .. import common
from ._config import Config

DENSE = "dense"
CONTROL = "small dense"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One trained network.

    Attributes:
      method: name of the row.
      budget: ``ERK``, ``uniform`` or nothing.
      asked: the sparsity asked for; of a small dense network, whose bytes it has.
      seed: of everything random.
      sparsity: counted in the masks of the weight matrices.
      zeros: counted in the matrices: a grown weight whose gradient is zero stays zero.
      accuracy: on the test set, after the last step.
      file_bytes: of the packed file.
    """

    method: str
    budget: str
    asked: float
    seed: int
    sparsity: float
    zeros: float
    accuracy: float
    file_bytes: int


Row = tuple[str, str]


def rows(records: Sequence[Record]) -> dict[Row, dict[float, list[Record]]]:
    """``{(method, budget): {asked: records of the seeds}}``, in the order of the runs."""
    grouped: dict[Row, dict[float, list[Record]]] = {}
    for r in records:
        row = grouped.setdefault((r.method, r.budget), {})
        row.setdefault(r.asked, []).append(r)
    return grouped


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method and budget, a column a sparsity."""
    grouped = rows(records)
    dense = _accuracies(grouped.pop((DENSE, ""))[0.0])
    result = Table(
        title=f"{'-'.join(map(str, config.widths))} on {config.data}: test accuracy % "
        f"({examples:,} examples, {config.seeds} seeds); dense {common.text_of(dense)}",
        caption="Last step of equally many. Small dense: float32 weights in no more bytes "
        "than the largest packed file of the column.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    result.add_column("", no_wrap=True)
    for sparsity in config.sparsities:
        result.add_column(f"{100 * sparsity:g} %", justify="right", no_wrap=True)
    for (method, budget), cells in grouped.items():
        texts = (common.text_of(_accuracies(cells[s])) for s in config.sparsities)
        result.add_row(f"{method} {budget}".strip(), *texts)
    largest = (max(_sizes(grouped, s)) for s in config.sparsities)
    result.add_row("file bytes, largest", *(f"{n:,}" for n in largest))
    return result


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for (method, budget), cells in rows(records).items():
        for asked, group in cells.items():
            mean, spread = common.mean_and_spread(_accuracies(group))
            made.append(
                {
                    "method": method,
                    "budget": budget,
                    "asked": asked,
                    "sparsity": statistics.fmean(r.sparsity for r in group),
                    "zeros": statistics.fmean(r.zeros for r in group),
                    "accuracy": mean,
                    "spread": spread,
                    "file_bytes": statistics.fmean(r.file_bytes for r in group),
                }
            )
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``: a panel a budget."""
    grouped = rows(records)
    dense = _accuracies(grouped.pop((DENSE, ""))[0.0])
    panels: dict[str, dict[str, common.Curve]] = {}
    for title in ("ERK", "uniform"):
        panels[f"{title} budgets"] = {
            method: common.Curve(
                {s: _accuracies(cell) for s, cell in cells.items()},
                "x:" if method == CONTROL else "o-",
            )
            for (method, budget), cells in grouped.items()
            if budget in (title, "")
        }
    return common.picture(panels, dense, path)


def _accuracies(group: Sequence[Record]) -> list[float]:
    return [r.accuracy for r in group]


def _sizes(grouped: dict[Row, dict[float, list[Record]]], asked: float) -> list[int]:
    return [
        r.file_bytes
        for (method, _), cells in grouped.items()
        if method != CONTROL
        for r in cells[asked]
    ]
