# SPDX-License-Identifier: Apache-2.0
"""The table at the end of a run, the same as plain data, and the picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from .. import common
from ._config import Config
from ._rows import METHODS

DENSE = "dense"
ONCE = "pruned once, not trained on"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One trained network.

    Attributes:
      method: name of the row.
      budget: ``ERK``, ``uniform`` or nothing.
      asked: the sparsity asked for; of a small dense network, whose bytes it has.
      seed: of everything random.
      sparsity: counted in the masks of the weight matrices.
      zeros: counted in the matrices: a grown weight whose gradient is zero stays zero.
      accuracy: on the test set, after the last step.
      file_bytes: of the packed file.
    """

    method: str
    budget: str
    asked: float
    seed: int
    sparsity: float
    zeros: float
    accuracy: float
    file_bytes: int


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method and budget, a column a sparsity."""
    cells = common.grouped(records, "method", "budget", "asked")
    dense = cells.pop((DENSE, "", 0.0))
    lines = {
        (f"{m} {b}".strip(), asked): group for (m, b, asked), group in cells.items()
    }
    return common.sparsity_table(
        config,
        examples,
        lines,
        dense=dense,
        controls=(ONCE, *common.CONTROLS),
        caption="Last step of equally many. Small dense: float32 weights in no more bytes "
        "than the largest packed file of the column, or as many weights as are left.",
    )


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Sparse training against small networks, no exchange, and pruning at the end."""
    cells = common.grouped(records, "method", "budget", "asked")
    sparsities = dict.fromkeys(r.asked for r in records if r.asked)

    def claim(method: str, bar: str, bar_method: str, budget: str) -> common.Claim:
        return common.Claim(
            f"{method}, ERK",
            bar,
            {
                f"at {100 * s:g} %": (
                    cells.get((method, "ERK", s), ()),
                    cells.get((bar_method, budget, s), ()),
                )
                for s in sparsities
            },
        )

    for method in METHODS:
        yield claim(method, "a small dense network of as many bytes", common.SMALL, "")
    for method in METHODS:
        bar = "a small dense network of as many MACs"
        yield claim(method, bar, common.SMALL_MACS, "")
    for method in ("RigL", "SET"):
        yield claim(method, "a static random mask", "static", "ERK")
    yield claim("gradual pruning", f"the dense network, {ONCE}", ONCE, "ERK")


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    rows = common.grouped(records, "method", "budget").values()
    return {
        "rows": common.summary_rows(
            itertools.chain.from_iterable(rows),
            ("method", "budget", "asked"),
            ("sparsity", "zeros", "file_bytes"),
        ),
        "records": common.as_json(records),
    }


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: a panel a budget."""
    rows = common.grouped(records, "method", "budget")
    dense = rows.pop((DENSE, ""))
    panels = {
        f"{title} budgets": {
            method: common.Curve(
                {
                    asked: common.values(cell)
                    for asked, cell in common.grouped(group, "asked").items()
                },
                "x:" if method == common.SMALL else "o-",
            )
            for (method, budget), group in rows.items()
            if budget in (title, "") and method not in (ONCE, common.SMALL_MACS)
        }
        for title in ("ERK", "uniform")
    }
    common.by_sparsity(panels, common.values(dense), path)
