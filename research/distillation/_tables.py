# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, what they claim, and the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import common
from ..students import ALONE, Record, grouped, markdown as tables, rows_of_picture
from ._rows import AVERAGE, FEATURES, LOGITS, VIEWS, temperature_row

PARTS = {
    "teachers": "*teachers*",
    "labels": "*labels only*",
    "logits": "*A. losses of logits*",
    "features": "*A. losses of features*",
    "views": "*A. more views of the images*",
    "schemes": "*B. its own teacher*",
}


def markdown(records: Sequence[Record]) -> str:
    """A table a part."""
    return tables(records, PARTS)


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Teachers against labels alone for as many steps, and additions to plain ``kl``."""
    groups, plain = grouped(records), temperature_row(4.0)

    def claim(row: str, bar: str, other: str, names: Sequence[str]) -> common.Claim:
        cases = {f"with {n}": (groups[n], groups[other]) for n in names if n in groups}
        return common.Claim(row, bar, cases)

    taught = [r.name for r in (*LOGITS[1:], *FEATURES, AVERAGE)]
    alone = "the student alone for as many steps"
    yield claim("a student", alone, ALONE, taught)
    more = [r.name for r in LOGITS if r.name.startswith("kl, ") and r.setting == "kl"]
    both = [r.name for r in FEATURES if r.kl]
    views = [r.name for r in VIEWS if r.loss is not None]
    yield claim("a student", "kl at T = 4 and no more", plain, [*more, *both, *views])


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: rows beside the student alone."""
    with common.figure(path, size=(8.5, 8.5), dpi=110) as (axis,):
        rows_of_picture(axis, records, list(PARTS)[1:])
