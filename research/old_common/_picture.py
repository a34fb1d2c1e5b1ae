# SPDX-License-Identifier: Apache-2.0
"""The picture: accuracy against sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ._results import mean_and_spread


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of the picture.

    Attributes:
      points: accuracies of the seeds, by sparsity.
      style: of the line, as matplotlib writes it: ``"o-"``.
    """

    points: Mapping[float, Sequence[float]]
    style: str = "o-"


def picture(
    panels: Mapping[str, Mapping[str, Curve]], dense: Sequence[float], path: Path
) -> Path:
    """Draw panels side by side, each with lines by name; returns the path.

    What lies more than 12 points below the dense network is cut off.
    """
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, FuncFormatter

    figure, axes = plt.subplots(
        1, len(panels), figsize=(5.5 * len(panels), 4.2), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    mean, spread = (100 * (v or 0.0) for v in mean_and_spread(dense))
    for axis, (title, curves) in zip(axes[0], panels.items(), strict=True):
        axis.axhline(mean, color="black", linestyle="--", label="dense")
        axis.axhspan(mean - spread, mean + spread, color="black", alpha=0.1)
        for name, curve in curves.items():
            _line(axis, name, curve)
        ticks = sorted({s for curve in curves.values() for s in curve.points})
        axis.set_xlim((1 - ticks[0]) * 1.1, (1 - ticks[-1]) / 1.1)
        axis.set_xscale("log")
        axis.xaxis.set_minor_locator(FixedLocator([]))
        axis.xaxis.set_major_locator(FixedLocator([1 - s for s in _apart(ticks)]))
        axis.xaxis.set_major_formatter(
            FuncFormatter(lambda x, _: f"{100 - 100 * x:.3g}")
        )
        axis.set(xlabel="sparsity of the weights, % (log scale of what is left)")
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="lower left")
    bottom, top = axes[0][0].get_ylim()
    axes[0][0].set_ylim(max(bottom, mean - 12), min(top, 100))
    axes[0][0].set(ylabel="test accuracy, %")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _line(axis: Any, name: str, curve: Curve) -> None:
    points = {s: mean_and_spread(values) for s, values in sorted(curve.points.items())}
    axis.errorbar(
        [1 - s for s in points],
        [100 * mean for mean, _ in points.values()],
        yerr=[100 * (spread or 0.0) for _, spread in points.values()],
        fmt=curve.style,
        markersize=4,
        linewidth=1.2,
        capsize=2,
        label=name,
    )


def _apart(ticks: Sequence[float]) -> list[float]:
    """Those that are far enough from one another for their labels."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or (1 - kept[-1]) / (1 - tick) > 1.4:
            kept.append(tick)
    return kept
