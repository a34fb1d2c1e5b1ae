# SPDX-License-Identifier: Apache-2.0
"""The picture: accuracy against bytes, and where the bytes of the file are."""

from __future__ import annotations

from pathlib import Path

from jaxcompress import report

from ._run import CONTROL, PACKED
from ._table import Records, rows


def picture(records: Records, path: Path) -> Path:
    """Draw ``results.png``; returns its path."""
    import matplotlib

    matplotlib.use("Agg")  # a file is drawn; no screen is needed
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.2), layout="constrained", width_ratios=[1, 1]
    )
    for name, row in rows(records).items():
        marker = {"dense": "s", CONTROL: "x", PACKED: "*"}.get(name, "o")
        spread = None if row["spread"] is None else 100 * row["spread"]
        left.errorbar(
            row["file_bytes"] / 1000,
            100 * row["accuracy"],
            yerr=spread,
            fmt=marker,
            markersize=12 if name == PACKED else 7,
            capsize=3,
            label=f"{name} ({row['ratio']:.0f}x)",
        )
    left.set_xscale("log")
    left.set(xlabel="file, kB (log scale)", ylabel="test accuracy, %")
    left.set_title("accuracy against bytes, mean and spread over seeds", fontsize=10)
    left.legend(fontsize=8)
    left.grid(alpha=0.3)

    size = records[PACKED][0].size
    assert size is not None
    leaves = sorted(size.leaves, key=lambda leaf: leaf.nbytes)
    labels = [f"{leaf.path}\n{_kept(leaf)}" for leaf in leaves] + ["names, manifest"]
    stored = [leaf.nbytes for leaf in leaves] + [size.overhead_bytes]
    bounds = [leaf.bound_bytes for leaf in leaves]
    right.barh(labels, stored, color="tab:blue", label="in the file")
    right.barh(
        labels[:-1], bounds, fill=False, edgecolor="black", label="order-0 bound"
    )
    right.set(xlabel="bytes (seed 0)")
    right.set_title(f"the packed file, {size.file_bytes:,} bytes", fontsize=10)
    right.tick_params(axis="y", labelsize=7)
    right.legend(fontsize=8, loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)
    return path


def _kept(leaf: report.LeafSize) -> str:
    return f"{leaf.nonzeros:,} of {leaf.params:,} kept"
