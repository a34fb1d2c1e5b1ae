# SPDX-License-Identifier: Apache-2.0
"""Pictures: a figure that becomes a file, error bars, and a band to compare with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ._records import mean_and_spread

Axis = Any  # of matplotlib, which is imported when something is drawn


@contextlib.contextmanager
def figure(
    path: Path, *, size: tuple[float, float], panels: int = 1, dpi: int = 130, **options
) -> Iterator[list[Axis]]:
    """Axes side by side, written to ``path`` at the end.

    Args:
      path: of the file.
      size: in inches.
      panels: how many axes.
      dpi: dots an inch.
      **options: of ``plt.subplots``.
    """
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        1, panels, figsize=size, layout="constrained", squeeze=False, **options
    )
    yield list(axes[0])
    figure.savefig(path, dpi=dpi)
    plt.close(figure)


def error_bars(
    axis: Axis,
    points: Mapping[float, Sequence[float]],
    label: str | None,
    *,
    scale: float = 100,
    **style: Any,
) -> None:
    """Draw mean and spread of values by place, fractions as percent.

    Args:
      axis: where to draw.
      points: values of the seeds by their place on the axis below.
      label: in the legend.
      scale: what the values are multiplied by.
      **style: of matplotlib's ``errorbar``.
    """
    each = [mean_and_spread(values) for values in points.values()]
    style = {"markersize": 4, "linewidth": 1.2, "capsize": 2} | style
    axis.errorbar(
        list(points),
        [scale * mean for mean, _ in each],
        yerr=[scale * (spread or 0.0) for _, spread in each],
        label=label,
        **style,
    )


def band(axis: Axis, values: Sequence[float], label: str) -> float:
    """Draw a dashed line at the mean of fractions and their spread; returns it, in %."""
    mean, spread = (100 * (value or 0.0) for value in mean_and_spread(values))
    axis.axhline(mean, color="black", linestyle="--", label=label)
    axis.axhspan(mean - spread, mean + spread, color="black", alpha=0.1)
    return mean


def finish(axis: Axis, title: str = "", *, legend: str = "lower left") -> None:
    """A grid, a small title, and a legend somewhere."""
    if title:
        axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc=legend)


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a picture of accuracy against sparsity.

    Attributes:
      points: accuracies of the seeds, by sparsity.
      style: of the line, as matplotlib writes it: ``"o-"``.
    """

    points: Mapping[float, Sequence[float]]
    style: str = "o-"


def by_sparsity(
    panels: Mapping[str, Mapping[str, Curve]], dense: Sequence[float], path: Path
) -> None:
    """Draw panels side by side, each with lines by name.

    What lies more than 12 points below the dense network is cut off.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter

    size = (5.5 * len(panels), 4.2)
    with figure(path, size=size, panels=len(panels), sharey=True) as axes:
        mean = 0.0
        for axis, (title, curves) in zip(axes, panels.items(), strict=True):
            mean = band(axis, dense, "dense")
            for name, curve in curves.items():
                points = {1 - s: curve.points[s] for s in sorted(curve.points)}
                error_bars(axis, points, name, fmt=curve.style)
            ticks = sorted({s for curve in curves.values() for s in curve.points})
            axis.set_xlim((1 - ticks[0]) * 1.1, (1 - ticks[-1]) / 1.1)
            axis.set_xscale("log")
            axis.xaxis.set_minor_locator(FixedLocator([]))
            axis.xaxis.set_major_locator(FixedLocator([1 - s for s in _apart(ticks)]))
            axis.xaxis.set_major_formatter(
                FuncFormatter(lambda x, _: f"{100 - 100 * x:.3g}")
            )
            axis.set(xlabel="sparsity of the weights, % (log scale of what is left)")
            finish(axis, title)
        bottom, top = axes[0].get_ylim()
        axes[0].set_ylim(max(bottom, mean - 12), min(top, 100))
        axes[0].set(ylabel="test accuracy, %")


def _apart(ticks: Sequence[float]) -> list[float]:
    """Those that are far enough from one another for their labels."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or (1 - kept[-1]) / (1 - tick) > 1.4:
            kept.append(tick)
    return kept
