# SPDX-License-Identifier: Apache-2.0
"""A picture of the groups of a network: which leaves have which channels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ._groups import Groups, check_groups


def draw(groups: Groups, path: str | Path) -> None:
    """Draw which leaves take part in which group, as an image file.

    Every row is a leaf, every column a group that can be pruned. A square names the axes
    of the leaf that have the group's channels; the number below a column is its size.

    Args:
      groups: the result of ``jc.trace_axes``.
      path: the file; its ending decides the format (``.png``, ``.svg``, ``.pdf``).

    Raises:
      ImportError: if matplotlib is missing.
    """
    check_groups(groups, "draw(groups, path)")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "draw needs matplotlib: pip install 'jaxcompress[plot]'"
        ) from error
    columns = list(groups.prunable.values())
    rows = [p for p in groups.shapes if any(p in g.leaves for g in columns)]
    width, height = 2 + 0.45 * len(columns), 1 + 0.22 * len(rows)
    longest = max(map(len, rows), default=0)
    figure = Figure(figsize=(width + 0.08 * longest, height), layout="constrained")
    axes: Any = figure.subplots()
    grid = np.zeros((len(rows), len(columns)))
    for j, group in enumerate(columns):
        for leaf in group.leaves:
            own = [str(m.axis) for m in group.members if m.leaf == leaf]
            i, text = rows.index(leaf), ", ".join(dict.fromkeys(own))
            grid[i, j] = 1
            axes.text(j, i, text, ha="center", va="center", fontsize=7, color="white")
    axes.imshow(grid, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    labels = [str(group.size) for group in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=7)
    axes.set_xlabel("channels of each group; the numbers in the squares are axes")
    figure.savefig(path, dpi=150)
