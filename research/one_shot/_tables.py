# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, the same as plain data, and the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import common
from ._config import Config
from ._rows import COMPENSATING, GLOBAL, METHODS

DENSE = "dense"
SAID = (0.5, 0.8, 0.95)  # sparsities of the verdicts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One network.

    Attributes:
      method: name of the row.
      asked: the sparsity asked for; of a small dense network, whose bytes it has.
      seed: of everything random.
      sparsity: counted zeros of the weight matrices.
      accuracy: on the test set.
      file_bytes: of the packed file.
    """

    method: str
    asked: float
    seed: int
    sparsity: float
    accuracy: float
    file_bytes: int


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method, a column a sparsity."""
    groups = common.grouped(records, "method", "asked")
    dense = groups.pop((DENSE, 0.0))
    return common.sparsity_table(
        config,
        examples,
        groups,
        dense=dense,
        controls=common.CONTROLS,
        caption="Pruned once, not trained on. Small dense: trained; float32 weights in no "
        "more bytes than the largest packed file of the column, or as many as are left.",
    )


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """What knows more than magnitudes against them, and all that compensate against small.

    At a low, a middle and a high sparsity, which both data sets have.
    """
    cells = common.grouped(records, "method", "asked")
    said = [s for s in dict.fromkeys(r.asked for r in records) if s in SAID]
    ran = [name for name in METHODS if all((name, s) in cells for s in said)]
    knowing = [name for name in ran if METHODS[name].needs]
    bars = {
        GLOBAL: ("magnitudes, ranked over the network", knowing),
        common.SMALL: ("a small dense network of as many bytes", COMPENSATING),
        common.SMALL_MACS: ("a small dense network of as many MACs", COMPENSATING),
    }
    for bar, (words, methods) in bars.items():
        for method in (name for name in methods if name in ran):
            yield common.Claim(
                method,
                words,
                {
                    f"at {100 * s:g} %": (cells[method, s], cells.get((bar, s), ()))
                    for s in said
                },
            )


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    return common.summary(records, ("method", "asked"), ("sparsity", "file_bytes"))


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: accuracy against sparsity, down to chance."""
    methods = common.grouped(records, "method")
    with common.figure(path, size=(7, 4.6)) as (axis,):
        common.band(axis, common.values(methods.pop(DENSE)), DENSE)
        for i, (method, group) in enumerate(methods.items()):
            cells = common.grouped(group, "asked")
            common.error_bars(
                axis,
                {100 * asked: common.values(cell) for asked, cell in cells.items()},
                method,
                fmt="x:" if method in common.CONTROLS else "os^v"[i % 4] + "-",
                color="black" if method == common.SMALL else f"C{i}",
            )
        axis.set(xlabel="sparsity of the weights, %", ylabel="test accuracy, %")
        common.finish(axis, "pruned once, not trained on: mean and spread of the seeds")
