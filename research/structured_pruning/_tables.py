# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, the same as plain data, and the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import common
from ._config import Config
from ._rows import DENSE, DEPTH, METHODS, ON, RANDOM, SCRATCH, UNTUNED, WIDTH, WIDTHS_OF

NUMBERS = ("parameters", "macs", "file_bytes", "seconds", "one", "many", "one_ms")
NUMBERS = (*NUMBERS, "many_ms")
CONTROLS = {RANDOM: "+", SCRATCH: "x", UNTUNED: "1"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What one job measured of one network; None for what another job measures.

    Attributes:
      method: name of the row.
      factor: how many times fewer MACs were asked for.
      seed: of everything random.
      accuracy: on the test set, after the last step.
      parameters: that are left; of masked weights, those that are not zero.
      macs: for one image, those by a zero among them.
      file_bytes: of the packed file, with batch statistics.
      seconds: of all steps after the dense network, or from scratch.
      one: time of a call with one image, divided by that of the dense network.
      many: the same, with many images.
      one_ms: milliseconds of the call.
      many_ms: the same, with many images.
    """

    method: str
    factor: float
    seed: int
    accuracy: float | None = None
    parameters: int | None = None
    macs: int | None = None
    file_bytes: int | None = None
    seconds: float | None = None
    one: float | None = None
    many: float | None = None
    one_ms: float | None = None
    many_ms: float | None = None


def table(config: Config, examples: int, records: Sequence[Record]) -> str:
    """A line a network, for every factor."""
    one, many = config.batches
    columns = ["fewer MACs", "", "accuracy %", "against dense", "parameters", "MACs"]
    columns += ["file bytes", f"time, {one} image", f"{many} images", "training s"]
    dense = common.grouped(records, "method")[DENSE]
    lines = []
    for (factor, method), group in _cells(records).items():
        change = (common.mean(group) or 0) - (common.mean(dense) or 0)
        lines.append(
            [
                f"{factor:g}x" if factor > 1 else "",
                method,
                common.percent(group),
                "" if method == DENSE else f"{100 * change:+.2f}",
                *(f"{common.mean(group, name):,.0f}" for name in NUMBERS[:3]),
                *(_time(group, name) for name in ("one", "many")),
                f"{common.mean(group, 'seconds'):.1f}",
            ]
        )
    note = f"test set of {examples:,}, mean and standard deviation, last epoch; times "
    note += "as a fraction of dense: " + ", ".join(
        f"{common.mean(dense, f'{name}_ms'):.2f} ms for {size}"
        for name, size in (("one", one), ("many", many))
    )
    return common.under_heading(config, note, common.markdown(columns, lines))


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Pruned networks against small ones from scratch, random channels, no training."""
    cells = _cells(records)
    every = [f for f in dict.fromkeys(f for f, _ in cells) if (f, SCRATCH) in cells]
    first = [f for f in every if (f, RANDOM) in cells]
    scored = [name for name in METHODS if name != RANDOM]
    small = "a small dense network of no more MACs and bytes, from scratch"
    pairs = [
        *((name, SCRATCH, small) for name in (*scored, DEPTH)),
        *((name, RANDOM, "random channels") for name in scored),
        (WIDTHS_OF, UNTUNED, "the same channels, not trained on"),
        (WIDTH, DEPTH, "removing blocks until it is as fast"),
    ]
    for name, bar, words in pairs:
        factors = every if bar == SCRATCH and (every[-1], name) in cells else first
        yield common.Claim(
            name,
            words,
            {
                f"at {f:g}x": (cells.get((f, name), ()), cells.get((f, bar), ()))
                for f in factors
            },
        )


def _cells(records: Sequence[Record]) -> dict[tuple[float, str], list[Record]]:
    cells = common.grouped(records, "factor", "method")
    return {key: cells[key] for key in sorted(cells, key=lambda key: key[0])}


def _time(group: Sequence[Record], field: str) -> str:
    times = common.values(group, field)
    if not times:
        return ""
    mean, spread = common.mean_and_spread(times)
    return f"{mean:.2f}" + ("" if spread is None else f" ± {spread:.2f}")


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every record, as JSON can hold them."""
    return common.summary(records, ("method", "factor"), NUMBERS)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against MACs and against measured times."""
    methods = common.grouped(records, "method")
    dense = common.values(methods.pop(DENSE))
    full = common.mean(methods.pop(ON), "macs") or 1.0
    axes = {
        "MACs, fraction of dense": lambda cell: (common.mean(cell, "macs") or 0) / full,
        "time with one image, fraction of dense": lambda cell: common.mean(cell, "one"),
        "time with many images, fraction": lambda cell: common.mean(cell, "many"),
    }
    with common.figure(path, size=(14, 4.4), panels=3, sharey=True) as panels:
        for axis, (label, place) in zip(panels, axes.items(), strict=True):
            common.band(axis, dense, DENSE)
            for i, (method, group) in enumerate(methods.items()):
                cells = common.grouped(group, "factor").values()
                points = {place(cell): common.values(cell) for cell in cells}
                control = method in CONTROLS
                style = f"{CONTROLS[method]}:" if control else "osv^D*Ph"[i] + "-"
                color = "black" if control else f"C{i}"
                common.error_bars(axis, points, method, fmt=style, color=color)
            axis.set(xlabel=label)
        panels[0].set(ylabel="test accuracy, %")
        for axis in panels[1:]:
            axis.grid(alpha=0.3)
        common.finish(panels[0], legend="lower right")
