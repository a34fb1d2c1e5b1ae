# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, as the README has them, what they claim, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common
from ..stages import Record, name_of, part_of


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Every student with a teacher against labels alone."""
    equal, chosen = part_of(records, "temperatures"), part_of(records, "weights")
    for (method, bits), alone in {
        key[:2]: group for key, group in equal.items() if key[2] == "labels"
    }.items():
        for cells, how in ((equal, "the weight 0.9"), (chosen, "the weight chosen")):
            taught = {
                f"with {kind}": (group, alone)
                for (*name, kind), group in cells.items()
                if tuple(name) == (method, bits) and kind != "labels"
            }
            if taught:
                row = f"{name_of(method, bits)}, with a teacher of {how}"
                yield common.Claim(row, "labels alone for as many steps", taught)


def markdown(records: Sequence[Record]) -> str:
    """Both tables: at equal weights, and with weights chosen for the temperatures."""
    tables = [
        _by_teacher("*temperatures*", "temperatures", records, weights=False),
        _by_teacher("*weights chosen for each*", "weights", records, weights=True),
    ]
    return "\n\n".join(table for table in tables if table)


def _by_teacher(
    title: str, part: str, records: Sequence[Record], *, weights: bool
) -> str:
    """A line a network, a column a teacher; nothing of nothing."""
    cells = part_of(records, part)
    columns = list(dict.fromkeys(taught for _, _, taught in cells))
    lines = []
    for method, bits in dict.fromkeys((method, bits) for method, bits, _ in cells):
        groups = [cells.get((method, bits, taught), []) for taught in columns]
        lines.append([name_of(method, bits), *map(common.percent, groups)])
        if weights:
            texts = [f"{group[0].weight:g}" if group else "" for group in groups]
            lines.append(["*weight of the teacher*", *texts])
    return common.markdown([title, *columns], lines) if lines else ""


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against temperature."""
    with common.figure(path, size=(7, 5), dpi=120) as (axis,):
        _temperatures(axis, part_of(records, "temperatures"))


def _temperatures(axis: Any, cells: Any) -> None:
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
        common.error_bars(axis, points, name_of(method, bits), fmt="osvD"[i % 4] + "-")
    axis.axhline(0, color="black", linestyle="--")
    axis.set_xticks(range(len(columns)), columns, fontsize=8)
    axis.set(ylabel="points above labels alone, same seed")
    common.finish(axis, "temperature of the teacher, equal weights")
