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
START = "rewound to step 0"
EARLY = "rewound to an early step"
ON = "not rewound, trained on"
AGAIN = "ticket, re-initialized"
ONCE = "pruned once, rewound to 0"
ONCE_ERK = "pruned once, ERK, to 0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One trained network.

    Attributes:
      method: name of the row.
      rounds: of pruning, or those that lead to the same sparsity.
      asked: the sparsity after so many.
      seed: of everything random.
      sparsity: counted zeros of the weight matrices.
      accuracy: on the test set, after the last step of the round.
    """

    method: str
    rounds: int
    asked: float
    seed: int
    sparsity: float
    accuracy: float


def rows(records: Sequence[Record]) -> dict[str, dict[int, list[Record]]]:
    """``{method: {rounds: records of the seeds}}``, in the order of the runs."""
    grouped: dict[str, dict[int, list[Record]]] = {}
    for r in records:
        grouped.setdefault(r.method, {}).setdefault(r.rounds, []).append(r)
    return grouped


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method, a column a sparsity."""
    grouped = rows(records)
    dense = _accuracies(grouped.pop(DENSE)[0])
    result = Table(
        title=f"{'-'.join(map(str, config.widths))} on {config.data}: test accuracy % "
        f"({examples:,} examples, {config.seeds} seeds); dense {common.text_of(dense)}",
        caption=f"{100 * config.share:g} % of what is left pruned in a round of "
        f"{config.epochs} epochs; last step.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    shown = [r for r in config.shown if r > 0]
    result.add_column("sparsity", no_wrap=True)
    for rounds in shown:
        heading = f"{100 * config.sparsity(rounds):.1f} %"
        result.add_column(heading, justify="right", no_wrap=True)
    for method, cells in grouped.items():
        texts = (
            common.text_of(_accuracies(cells[r])) if r in cells else "" for r in shown
        )
        result.add_row(method, *texts)
    return result


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for method, cells in rows(records).items():
        for rounds, group in cells.items():
            mean, spread = common.mean_and_spread(_accuracies(group))
            made.append(
                {
                    "method": method,
                    "rounds": rounds,
                    "asked": group[0].asked,
                    "sparsity": statistics.fmean(r.sparsity for r in group),
                    "accuracy": mean,
                    "spread": spread,
                }
            )
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``."""
    grouped = rows(records)
    dense = _accuracies(grouped.pop(DENSE)[0])
    curves = {
        method: common.Curve(
            {group[0].asked: _accuracies(group) for group in cells.values()},
            {AGAIN: "x:", ONCE: "s--", ONCE_ERK: "^--"}.get(method, "o-"),
        )
        for method, cells in grouped.items()
    }
    return common.picture({"lottery tickets and controls": curves}, dense, path)


def _accuracies(group: Sequence[Record]) -> list[float]:
    return [r.accuracy for r in group]
