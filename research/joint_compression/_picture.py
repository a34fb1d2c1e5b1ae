# SPDX-License-Identifier: Apache-2.0
"""The picture: accuracy against bytes, and against temperature."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import old_common as common
from ._rows import LONGER
from ._table import Record, accuracies, cells, pairs

BELOW = 12  # points below the float network, at which the picture is cut


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``; returns the path."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 5), layout="constrained", width_ratios=[1.2, 1]
    )
    _bytes(left, records)
    _temperatures(right, records)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _bytes(axis: Any, records: Sequence[Record]) -> None:
    """A color a method, a point a width, filled with labels and open with a teacher."""
    colors: dict[str, str] = {}
    for (method, _), pair in pairs(records).items():
        known = method in colors
        color = colors.setdefault(method, f"C{len(colors) % 10}")
        marker = "osv^Dx*P<>"[list(colors).index(method) % 10]
        for i, group in enumerate(pair):
            if not group:
                continue
            mean, spread = common.mean_and_spread(accuracies(group))
            axis.errorbar(
                sum(r.file_bytes for r in group) / len(group),
                100 * mean,
                yerr=100 * (spread or 0.0),
                fmt=marker,
                color=color,
                fillstyle="none" if i else "full",
                markersize=6,
                capsize=2,
                label=None if known else method,
            )
            known = True
    axis.set_xscale("log")
    base = 100 * common.mean_and_spread(accuracies(pairs(records)[LONGER, None][0]))[0]
    axis.set(ylim=(max(base - BELOW, 0), base + 1))
    axis.set(xlabel="bytes of the file (log scale)", ylabel="test accuracy, %")
    axis.set_title("filled: labels; open: distilled", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower right")


def _temperatures(axis: Any, records: Sequence[Record]) -> None:
    """What a teacher adds to labels, by seed, at equal weights."""
    grouped = {k[1:]: g for k, g in cells(records).items() if k[0] == "temperatures"}
    columns = [t for t in dict.fromkeys(t for _, _, t in grouped) if t != "labels"]
    networks = list(dict.fromkeys((method, bits) for method, bits, _ in grouped))
    for i, (method, bits) in enumerate(networks):
        base = accuracies(grouped[method, bits, "labels"])
        there = [c for c in columns if (method, bits, c) in grouped]
        points = []
        for taught in there:
            group = accuracies(grouped[method, bits, taught])
            gains = [a - b for a, b in zip(group, base, strict=True)]
            points.append(common.mean_and_spread(gains))
        axis.errorbar(
            [columns.index(c) + 0.06 * (i - len(networks) / 2) for c in there],
            [100 * mean for mean, _ in points],
            yerr=[100 * (spread or 0.0) for _, spread in points],
            fmt="osvD"[i % 4] + "-",
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=method if bits is None else f"{method}, {bits} bits",
        )
    axis.axhline(0, color="black", linestyle="--")
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set(ylabel="points above labels alone, same seed")
    axis.set_title("temperature of the teacher, equal weights", fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
