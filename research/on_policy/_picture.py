# SPDX-License-Identifier: Apache-2.0
"""The picture: what rows give on the text, against what they give on their own writing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .. import old_common as common
from ._table import TEACHER, WARM, Record, cells, values

STYLES = {"cross-entropy": "s", "kl": "o", "reverse_kl": "^", "jensen_shannon": "D"}


def draw(records: Sequence[Record], path: Path) -> Path:
    """Draw ``results.png``; returns the path."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    for axis, field, label in (
        (axes[0], "own_reverse_kl", "reverse kl from the teacher, own writing, bits"),
        (axes[1], "likely", "own writing, by the teacher, bits a character"),
    ):
        for i, (name, group) in enumerate(cells(records).items()):
            if name in (TEACHER, WARM):
                continue
            (x, dx), (y, dy) = (
                common.mean_and_spread(values(group, f)) for f in ("bits", field)
            )
            axis.errorbar(
                [x], [y], xerr=[dx or 0.0], yerr=[dy or 0.0],
                fmt=STYLES[name.rsplit(", ", 1)[1]], color=f"C{i % 10}",
                fillstyle="full" if name.startswith("own") else "none",
                markersize=7, linewidth=1, capsize=2, label=name,
            )  # fmt: skip
        axis.set(xlabel="test text, bits a character", ylabel=label)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
