# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common
from ..stages import (
    AFTER,
    JOINTLY,
    LONGER,
    NARROW,
    PRUNE,
    PRUNE_FIRST,
    QUANTIZE,
    SMALL,
    Record,
    name_of,
    part_of,
)

BELOW = 12  # points below the float network, at which the picture is cut


def pairs(records: Sequence[Record]) -> dict[tuple[str, int | None], list[Any]]:
    """Of the methods: the networks with labels, and those with a teacher."""
    by_method: dict[tuple[str, int | None], list[Any]] = {}
    for (method, bits, taught), group in part_of(records, "methods").items():
        pair = by_method.setdefault((method, bits), [[], []])
        pair[taught != "labels"] = group
    return by_method


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Jointly against one after another, afterwards and small; taught against labels."""
    cells, few = pairs(records), (4, 3, 2)
    small = "a small dense network of as many MACs, in floats"
    bars = [
        (PRUNE, f"{AFTER}{PRUNE}", "pruning afterwards, not trained on", (None,)),
        (PRUNE, common.SMALL_MACS, small, (None,)),
        (QUANTIZE, f"{AFTER}{QUANTIZE}", "rounding afterwards, not trained on", few),
        (JOINTLY, f"{AFTER}{PRUNE_FIRST}", "both afterwards, not trained on", few),
        (JOINTLY, PRUNE_FIRST, "pruning first, then quantizing", few),
        (JOINTLY, NARROW, "a narrow network of 4 bits and as many bytes", (2,)),
        (JOINTLY, SMALL, "a small dense network of as many bytes", (2,)),
        (PRUNE_FIRST, NARROW, "a narrow network of 4 bits and as many bytes", (2,)),
    ]
    for method, bar, words, widths in bars:
        both = {
            "" if bits is None else f"at {bits} bits": (
                cells[method, bits][0],
                cells.get((bar, bits), [(), ()])[0],
            )
            for bits in widths
            if (method, bits) in cells
        }
        yield common.Claim(method, words, both)
    taught = {
        f"for {name_of(*name)}": (distilled, labels or cells[PRUNE_FIRST, name[1]][0])
        for name, (labels, distilled) in cells.items()
        if distilled
    }
    yield common.Claim("distillation", "labels alone for as many steps", taught)


def markdown(records: Sequence[Record]) -> str:
    """A line a method and width, with labels and with a teacher."""
    columns = ("bits", "labels", "distilled", "zeros, %", "bytes", "bits a weight")
    lines = []
    # Few bits below many; floats first.
    by_bits = sorted(pairs(records).items(), key=lambda item: -(item[0][1] or 32))
    for (method, bits), (labels, distilled) in by_bits:
        size = labels or distilled
        nbytes, zeros = (
            statistics.fmean(common.values(size, field))
            for field in ("file_bytes", "sparsity")
        )
        lines.append(
            [
                method,
                "32" if bits is None else str(bits),
                common.percent(labels),
                common.percent(distilled),
                f"{100 * zeros:.1f}",
                f"{nbytes:,.0f}",
                f"{8 * nbytes / size[0].weights:.2f}",
            ]
        )
    return common.markdown(["*methods*", *columns], lines)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against bytes."""
    with common.figure(path, size=(8, 5), dpi=120) as (axis,):
        _bytes(axis, records)


def _bytes(axis: Any, records: Sequence[Record]) -> None:
    """A color a method, a point a width, filled with labels and open with a teacher."""
    methods = pairs(records)
    names = list(dict.fromkeys(method for method, _ in methods))
    labeled: set[str] = set()
    for (method, _), pair in methods.items():
        number = names.index(method) % 10
        for group, fill in zip(pair, ("full", "none"), strict=True):
            if not group:
                continue
            nbytes = sum(r.file_bytes for r in group) / len(group)
            common.error_bars(
                axis, {nbytes: common.values(group)},
                None if method in labeled else method, fmt="osv^Dx*P<>"[number],
                color=f"C{number}", fillstyle=fill, markersize=6, linewidth=1.5,
            )  # fmt: skip
            labeled.add(method)
    axis.set_xscale("log")
    base = common.mean_and_spread(common.values(methods[LONGER, None][0]))[0]
    axis.set(ylim=(max(100 * base - BELOW, 0), 100 * base + 1))
    axis.set(xlabel="bytes of the file (log scale)", ylabel="test accuracy, %")
    common.finish(axis, "filled: labels; open: distilled", legend="lower right")
