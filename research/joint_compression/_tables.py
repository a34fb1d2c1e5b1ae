# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, and the same as plain data."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common
from ._config import Config
from ._rows import AFTER, JOINTLY, LONGER, NARROW, PRUNE, PRUNE_FIRST, QUANTIZE, SMALL


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network.

    Attributes:
      part: of the study: ``"methods"``, ``"temperatures"`` or ``"weights"``.
      method: name of the row.
      bits: of weights; of a small network, whose bytes it has; None of floats.
      taught: by ``labels`` alone, or with a teacher, at which temperature.
      weight: of the teacher in the loss.
      seed: of everything random.
      accuracy: on the test set, after the last step.
      sparsity: counted in the weight matrices of what ships.
      levels: counted in the codes, of the matrix with the most; None of floats.
      weights: in the matrices.
      file_bytes: of the packed file.
    """

    part: str
    method: str
    bits: int | None
    taught: str
    weight: float
    seed: int
    accuracy: float
    sparsity: float
    levels: int | None
    weights: int
    file_bytes: int


Cells = dict[tuple[str, int | None, str], list[Record]]  # method, bits, taught
BELOW = 12  # points below the float network, at which the picture is cut


def part_of(records: Sequence[Record], part: str) -> Cells:
    """Records of a part by method, bits and teacher, in the order of the runs."""
    of_part = (record for record in records if record.part == part)
    return common.grouped(of_part, "method", "bits", "taught")


def pairs(records: Sequence[Record]) -> dict[tuple[str, int | None], list[Any]]:
    """Of the methods: the networks with labels, and those with a teacher."""
    by_method: dict[tuple[str, int | None], list[Any]] = {}
    for (method, bits, taught), group in part_of(records, "methods").items():
        pair = by_method.setdefault((method, bits), [[], []])
        pair[taught != "labels"] = group
    return by_method


def tables(config: Config, examples: int, records: Sequence[Record]) -> str:
    """All tables under a heading, as the command prints them."""
    del examples
    note = "test accuracy %; all of it simulated"
    return common.under_heading(config, note, markdown(records))


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
        f"for {_name(*name)}": (distilled, labels or cells[PRUNE_FIRST, name[1]][0])
        for name, (labels, distilled) in cells.items()
        if distilled
    }
    yield common.Claim("distillation", "labels alone for as many steps", taught)
    hot = part_of(records, "temperatures")
    few_bits = {
        f"at {kind}": (group, hot[method, bits, "labels"])
        for (method, bits, kind), group in hot.items()
        if (method, bits) == (JOINTLY, 2) and kind != "labels"
    }
    row = "jointly, 2 bits, with 0.9 for the teacher"
    yield common.Claim(row, "labels alone for as many steps", few_bits)


def markdown(records: Sequence[Record]) -> str:
    """All tables: of methods, of temperatures, and with weights chosen for them."""
    tables = [
        _methods(records),
        _by_teacher("*temperatures*", "temperatures", records, weights=False),
        _by_teacher("*weights chosen for each*", "weights", records, weights=True),
    ]
    return "\n\n".join(table for table in tables if table)


def _methods(records: Sequence[Record]) -> str:
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


def _by_teacher(
    title: str, part: str, records: Sequence[Record], *, weights: bool
) -> str:
    """A line a network, a column a teacher; nothing of nothing."""
    cells = part_of(records, part)
    columns = list(dict.fromkeys(taught for _, _, taught in cells))
    lines = []
    for method, bits in dict.fromkeys((method, bits) for method, bits, _ in cells):
        groups = [cells.get((method, bits, taught), []) for taught in columns]
        lines.append([_name(method, bits), *map(common.percent, groups)])
        if weights:
            texts = [f"{group[0].weight:g}" if group else "" for group in groups]
            lines.append(["*weight of the teacher*", *texts])
    return common.markdown([title, *columns], lines) if lines else ""


def _name(method: str, bits: int | None) -> str:
    return method if bits is None else f"{method}, {bits} bits"


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    keys = ("part", "method", "bits", "taught", "weight", "weights")
    rows = common.summary_rows(records, keys, ("sparsity", "file_bytes"))
    for row in rows:
        row["bits_a_weight"] = 8 * row["file_bytes"] / row.pop("weights")
    return {"rows": rows, "records": common.as_json(records)}


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against bytes, and against temperature."""
    size, ratios = (13, 5), [1.2, 1]
    with common.figure(path, size=size, panels=2, dpi=120, width_ratios=ratios) as axes:
        _bytes(axes[0], records)
        _temperatures(axes[1], part_of(records, "temperatures"))


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


def _temperatures(axis: Any, cells: Cells) -> None:
    """What a teacher adds to labels, by seed, at equal weights."""
    columns = [t for t in dict.fromkeys(t for _, _, t in cells) if t != "labels"]
    networks = list(dict.fromkeys((method, bits) for method, bits, _ in cells))
    for i, (method, bits) in enumerate(networks):
        labels = common.values(cells[method, bits, "labels"])
        shift = 0.06 * (i - len(networks) / 2)
        points = {}
        for place, taught in enumerate(columns):
            if group := cells.get((method, bits, taught)):
                pairs = zip(common.values(group), labels, strict=True)
                points[place + shift] = [a - b for a, b in pairs]
        common.error_bars(axis, points, _name(method, bits), fmt="osvD"[i % 4] + "-")
    axis.axhline(0, color="black", linestyle="--")
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set(ylabel="points above labels alone, same seed")
    common.finish(axis, "temperature of the teacher, equal weights")
