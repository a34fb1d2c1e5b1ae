# SPDX-License-Identifier: Apache-2.0
"""The picture: every row beside the student alone, and the omitted classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import old_common as common
from ._omitted import Without
from ._rows import ALONE
from ._table import TEACHER, Record, accuracies, grouped, students

BELOW = 6  # points below the student alone, at which the picture is cut
COLORS = {
    "labels": "black",
    "logits": "C0",
    "features": "C1",
    "views": "C2",
    "schemes": "C3",
}


def draw(
    records: Sequence[Record],
    without: Sequence[Without],
    classes: Sequence[str],
    path: Path,
) -> Path:
    """Draw ``results.png``; returns the path."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, 2, figsize=(14, 8.5), layout="constrained", width_ratios=(3, 2)
    )
    _rows(axes[0], records)
    _classes(axes[1], without, classes)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _rows(axis: Any, records: Sequence[Record]) -> None:
    groups = grouped(records)
    mean, spread = (100 * (v or 0.0) for v in _stats(groups[ALONE]))
    top = 100 * _stats(groups[TEACHER])[0]
    axis.axvspan(mean - spread, mean + spread, color="black", alpha=0.1)
    axis.axvline(mean, color="black", linestyle="--", label=ALONE)
    axis.axvline(top, color="C4", linestyle="--", label=TEACHER)
    names = [name for name, group in groups.items() if group[0].part in COLORS]
    for i, name in enumerate(names):
        part, (at, error) = groups[name][0].part, _stats(groups[name])
        axis.errorbar(
            100 * at, i, xerr=100 * (error or 0.0), fmt="o", color=COLORS[part],
            markersize=4, capsize=2,
        )  # fmt: skip
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set(xlim=(mean - BELOW, top + 1), ylim=(len(names) - 0.5, -0.5))
    axis.set(xlabel="test accuracy, %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")


def _stats(group: Sequence[Record]) -> tuple[float, float | None]:
    return common.mean_and_spread(accuracies(group))


def _classes(axis: Any, without: Sequence[Without], classes: Sequence[str]) -> None:
    named = students(without)
    for i, group in enumerate(named.values()):
        for values, color, height in (
            ([r.raised_recall for r in group], "C1", 0.7),
            ([r.recall for r in group], "C0", 0.4),
        ):
            mean, spread = common.mean_and_spread(values)
            axis.barh(i, 100 * mean, height, xerr=100 * (spread or 0.0), color=color)
    labels = [f"{classes[number]}: {name}" for number, name in named]
    axis.set_yticks(range(len(named)), labels, fontsize=8)
    axis.set(ylim=(len(named) - 0.5, -0.5), xlim=(0, 102))
    axis.set(xlabel="right answers on the class, %")
    axis.set_title("blue: as trained; orange: bias raised", fontsize=10)
    axis.grid(alpha=0.3)
