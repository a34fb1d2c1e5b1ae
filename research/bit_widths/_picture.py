# SPDX-License-Identifier: Apache-2.0
"""The picture: accuracy against bits, and the scales beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import old_common as common
from ._rows import LONGER
from ._table import (
    AFTER,
    OF_BOTH,
    OF_WEIGHTS,
    TRAINED,
    Cells,
    Record,
    accuracies,
    cells,
)

BELOW = 12  # points below the float network, at which the picture is cut


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``; returns the path."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    grouped = cells(records)
    figure, axes = plt.subplots(
        1, 3, figsize=(15, 4.4), layout="constrained", sharey=True
    )
    narrow, widths = ("4", "3", "2"), ("8", "4", "3", "2", "1")
    _panel(
        axes[0],
        "weights, after training and in training",
        grouped,
        AFTER | TRAINED,
        widths,
    )
    _panel(axes[1], "scales of weights, trained on", grouped, OF_WEIGHTS, narrow)
    both = tuple(f"W{b}A{b}" for b in narrow)
    _panel(axes[2], "scales of weights and activations", grouped, OF_BOTH, both)
    base = 100 * common.mean_and_spread(accuracies(grouped[LONGER, "32", "float"]))[0]
    axes[0].set(ylim=(base - BELOW, base + 1), ylabel="test accuracy, %")
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path


def _panel(
    axis: Any,
    title: str,
    grouped: Cells,
    lines: Mapping[tuple[str, str], str],
    columns: Sequence[str],
) -> None:
    mean, spread = common.mean_and_spread(accuracies(grouped[LONGER, "32", "float"]))
    axis.axhline(100 * mean, color="black", linestyle="--", label=LONGER)
    low, high = (100 * (mean + sign * (spread or 0.0)) for sign in (-1, 1))
    axis.axhspan(low, high, color="black", alpha=0.1)
    for i, ((method, start), name) in enumerate(lines.items()):
        there = [c for c in columns if (method, c, start) in grouped]
        if not there:
            continue
        points = [
            common.mean_and_spread(accuracies(grouped[method, c, start])) for c in there
        ]
        axis.errorbar(
            [columns.index(c) + 0.03 * (i - len(lines) / 2) for c in there],
            [100 * mean for mean, _ in points],
            yerr=[100 * (spread or 0.0) for _, spread in points],
            fmt="osv^Dx+"[i % 7] + ("-" if start == "float" else ":"),
            markersize=4,
            linewidth=1.2,
            capsize=2,
            label=name,
        )
    axis.set_xticks(range(len(columns)), columns)
    axis.set(xlabel="bits")
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="lower left")
