# SPDX-License-Identifier: Apache-2.0
"""Sections of a page: tables of texts that are not records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ._markup import Markup, element, join


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    """A table of texts with a heading, for the page that ``html`` makes.

    Attributes:
      title: the heading.
      note: what the table shows, below the heading.
      columns: headings of the columns.
      rows: texts, as many in each row as there are columns.

    Raises:
      ValueError: if a row has more or fewer texts than there are columns.

    Example:
      >>> from jaxcompress import report
      >>> made = report.Section(title="Size", columns=["model", "MB"], rows=[["a", "3"]])
      >>> record = report.Record(name="a", provenance=report.provenance())
      >>> "<h2>Size</h2>" in report.html([record], sections=[made])
      True
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if isinstance(row, str) or len(row) != len(self.columns):
                raise ValueError(
                    f"each row of {self.title!r} must have {len(self.columns)} texts, one "
                    f"for each column, got {row!r}."
                )


def section(shown: Section) -> Markup:
    """Draw a section."""
    heads = (element("th", text, scope="col", class_="text") for text in shown.columns)
    rows = (
        element(
            "tr",
            *(
                element("td" if i else "th", text, class_="text prose")
                for i, text in enumerate(row)
            ),
        )
        for row in shown.rows
    )
    table = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *rows),
    )
    return join(
        element("h2", shown.title),
        element("p", shown.note, class_="soft") if shown.note else "",
        element(
            "div",
            table,
            class_="card scroll",
            tabindex=0,
            role="region",
            aria_label=shown.title,
        ),
    )
