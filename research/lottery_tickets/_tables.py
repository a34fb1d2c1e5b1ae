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

DENSE = "dense"
START = "rewound to step 0"
EARLY = "rewound to an early step"
ON = "not rewound, trained on"
AGAIN = "ticket, re-initialized"
ONCE = "pruned once, rewound to 0"
ONCE_ERK = "pruned once, ERK, to 0"
STYLES = {AGAIN: "x:", ONCE: "s--", ONCE_ERK: "^--", common.SMALL_MACS: "D:"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One trained network.

    Attributes:
      method: name of the row.
      rounds: of pruning, or those that lead to the same sparsity.
      asked: the sparsity after so many.
      seed: of everything random.
      sparsity: counted zeros of the weight matrices.
      accuracy: on the test set, after the last step of the round.
    """

    method: str
    rounds: int
    asked: float
    seed: int
    sparsity: float
    accuracy: float


def table(config: Config, examples: int, records: Sequence[Record]) -> Table:
    """A line a method, a column a sparsity."""
    cells = common.grouped(records, "method", "rounds")
    dense = cells.pop((DENSE, 0))
    shown = [rounds for rounds in config.shown if rounds > 0]
    return common.for_terminal(
        ["sparsity", *(f"{100 * config.sparsity(rounds):.1f} %" for rounds in shown)],
        common.accuracy_lines(cells, shown),
        title=common.heading(config, examples, dense),
        caption=f"{100 * config.share:g} % of what is left pruned in a round of "
        f"{config.epochs} epochs; last step.",
    )


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Tickets against what is found, or trained, without all the rounds of rewinding."""
    cells = common.grouped(records, "method", "rounds")
    bars = {
        common.SMALL_MACS: "a small dense network of as many MACs",
        AGAIN: "the same masks with other initial weights",
        ON: "pruning without rewinding",
        ONCE_ERK: "pruning once by ERK budgets and rewinding",
    }
    for bar, words in bars.items():
        places = {
            f"at {100 * group[0].asked:.1f} %": (
                cells[START, rounds],
                cells.get((bar, rounds), ()),
            )
            for (method, rounds), group in cells.items()
            if method == AGAIN and ((bar, rounds) in cells or bar not in (ON, ONCE_ERK))
        }
        yield common.Claim(START, words, places)


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Rows with means and spreads, and every network, as JSON can hold them."""
    rows = common.grouped(records, "method").values()
    ordered = itertools.chain.from_iterable(rows)
    keys = ("method", "rounds", "asked")
    return {
        "rows": common.summary_rows(ordered, keys, ("sparsity",)),
        "records": common.as_json(records),
    }


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``."""
    methods = common.grouped(records, "method")
    dense = common.values(methods.pop(DENSE))
    curves = {
        method: common.Curve(
            {
                asked: common.values(cell)
                for asked, cell in common.grouped(group, "asked").items()
            },
            STYLES.get(method, "o-"),
        )
        for method, group in methods.items()
    }
    common.by_sparsity({"lottery tickets and controls": curves}, dense, path)
