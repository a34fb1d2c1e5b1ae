# SPDX-License-Identifier: Apache-2.0
"""The tables at the end of a run, what they claim, and the picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from .. import common
from ..students import (
    ALONE,
    KL,
    Record,
    grouped,
    markdown as tables,
    rows_of_picture,
)
from ._rows import ASSISTANT, ASSISTED

PARTS = {
    "teachers": "*teachers*",
    "labels": "*labels only*",
    "schemes": "*B. schemes*",
}


def markdown(records: Sequence[Record]) -> str:
    """A table a part."""
    return tables(records, PARTS)


def claims(records: Sequence[Record]) -> Iterator[common.Claim]:
    """Schemes against labels alone, and the assistant's student against plain ``kl``."""
    groups = grouped(records)
    names = [n for n, g in groups.items() if g[0].part == "schemes" and n != ASSISTANT]
    cases = {f"with {name}": (groups[name], groups[ALONE]) for name in names}
    yield common.Claim("a student", "the student alone for as many steps", cases)
    both = {"": (groups[ASSISTED], groups[KL])}
    yield common.Claim(ASSISTED, "kl by the teacher itself", both)


def draw(records: Sequence[Record], path: Path) -> None:
    """Draw ``results.png``: rows beside the student alone."""
    with common.figure(path, size=(8, 4)) as (axis,):
        rows_of_picture(axis, records, list(PARTS)[1:])
