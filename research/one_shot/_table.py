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
    """One network.

    Attributes:
      method: name of the row.
      asked: the sparsity asked for; of a small dense network, whose bytes it has.
      seed: of everything random.
      sparsity: counted zeros of the weight matrices.
      accuracy: on the test set.
      file_bytes: of the packed file.
    """

    method: str
    asked: float
    seed: int
    sparsity: float
    accuracy: float
    file_bytes: int


def rows(records: Sequence[Record]) -> dict[str, dict[float, list[Record]]]:
    """``{method: {asked: records of the seeds}}``, in the order of the runs."""
    grouped: dict[str, dict[float, list[Record]]] = {}
    for r in records:
        grouped.setdefault(r.method, {}).setdefault(r.asked, []).append(r)
    return grouped


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method, a column a sparsity."""
    grouped = rows(records)
    dense = _accuracies(grouped.pop(DENSE)[0.0])
    result = Table(
        title=f"{'-'.join(map(str, config.widths))} on {config.data}: test accuracy % "
        f"({examples:,} examples, {config.seeds} seeds); dense {common.text_of(dense)}",
        caption="Pruned once, not trained on. Small dense: trained; float32 weights in no "
        "more bytes than the largest packed file of the column.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    result.add_column("", no_wrap=True)
    for sparsity in config.sparsities:
        result.add_column(f"{100 * sparsity:g} %", justify="right", no_wrap=True)
    for method, cells in grouped.items():
        texts = (common.text_of(_accuracies(cells[s])) for s in config.sparsities)
        result.add_row(method, *texts)
    sizes = (largest(records, s) for s in config.sparsities)
    result.add_row("file bytes, largest", *(f"{n:,}" for n in sizes))
    return result


def largest(records: Sequence[Record], asked: float) -> int:
    """Bytes of the largest file of a pruned network."""
    return max(
        r.file_bytes for r in records if r.asked == asked and r.method != CONTROL
    )


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    made = []
    for method, cells in rows(records).items():
        for asked, group in cells.items():
            mean, spread = common.mean_and_spread(_accuracies(group))
            made.append(
                {
                    "method": method,
                    "asked": asked,
                    "sparsity": statistics.fmean(r.sparsity for r in group),
                    "accuracy": mean,
                    "spread": spread,
                    "file_bytes": statistics.fmean(r.file_bytes for r in group),
                }
            )
    return {"rows": made, "records": [dataclasses.asdict(r) for r in records]}


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``: accuracy against sparsity, down to chance."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    grouped = rows(records)
    dense, spread = common.mean_and_spread(_accuracies(grouped.pop(DENSE)[0.0]))
    figure, axis = plt.subplots(figsize=(7, 4.6), layout="constrained")
    axis.axhline(100 * dense, color="black", linestyle="--", label=DENSE)
    band = [100 * (dense + sign * (spread or 0.0)) for sign in (-1, 1)]
    axis.axhspan(*band, color="black", alpha=0.1)
    for i, (method, cells) in enumerate(grouped.items()):
        points = [common.mean_and_spread(_accuracies(g)) for g in cells.values()]
        axis.errorbar(
            [100 * asked for asked in cells],
            [100 * mean for mean, _ in points],
            yerr=[100 * (spread or 0.0) for _, spread in points],
            fmt="x:" if method == CONTROL else "os^v"[i % 4] + "-",
            color="black" if method == CONTROL else f"C{i}",
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=method,
        )
    axis.set(xlabel="sparsity of the weights, %", ylabel="test accuracy, %")
    axis.set_title(
        "pruned once, not trained on: mean and spread of the seeds", fontsize=10
    )
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _accuracies(group: Sequence[Record]) -> list[float]:
    return [r.accuracy for r in group]
