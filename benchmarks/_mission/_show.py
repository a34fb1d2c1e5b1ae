# SPDX-License-Identifier: Apache-2.0
"""The ten tables in a terminal, on a page and as rows of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as Grid

from jaxcompress import report

from ._document import Table
from ._tables import Row

Made = Sequence[tuple[Table, Sequence[Row]]]
COLUMNS = ("row", "document", "ours", "verdict", "why")
_STYLES = {"better": "green", "not better": "red", "open": "yellow", "given": "dim"}


def terminal(made: Made, console: Console) -> None:
    """Print the tables."""
    for title, (table, rows) in zip(_titles(made), made, strict=True):
        grid = Grid(title=title, title_justify="left")
        for column in COLUMNS:
            grid.add_column(column, overflow="fold")
        for row in rows:
            style = _STYLES[row.verdict]
            grid.add_row(*_cells(row)[:3], f"[{style}]{row.verdict}[/]", row.why)
        console.print(grid)
        console.print(f"{table.note} Better: {table.rule}.\n", style="dim")


def sections(made: Made) -> list[report.Section]:
    """Return the tables for a page, after one that sums them up."""
    short = [
        [title, *_summary(rows).values()]
        for title, (_, rows) in zip(_titles(made), made, strict=True)
    ]
    summary = report.Section(
        title="In short",
        note="Better: less accuracy lost, at a larger factor. Open: the seeds cannot tell.",
        columns=("table", "document", "ours", "better?"),
        rows=short,
    )
    return [summary] + [
        report.Section(
            title=title,
            note=f"{table.note} Better: {table.rule}.",
            columns=COLUMNS,
            rows=[_cells(row) for row in rows],
        )
        for title, (table, rows) in zip(_titles(made), made, strict=True)
    ]


def results(made: Made) -> list[dict[str, Any]]:
    """Return one row for each table, and one for each of its rows."""
    found = []
    for title, (_, rows) in zip(_titles(made), made, strict=True):
        found.append({"name": title, **_summary(rows)})
        found += [
            {
                "name": f"{title}: {row.name}",
                "document": row.document,
                "ours": row.ours,
                "verdict": row.verdict,
                "why": row.why,
            }
            for row in rows
        ]
    return found


def _titles(made: Made) -> list[str]:
    return [f"({number}) {table.title}" for number, (table, _) in enumerate(made, 1)]


def _summary(rows: Sequence[Row]) -> dict[str, str]:
    """A table in one row: figures by what each row is about, and how many are better."""
    judged = Counter(row.verdict for row in rows if row.verdict != "given")
    counts = [f"{judged[v]} of {judged.total()} {v}" for v in judged]
    if len(rows) == 1:
        (row,) = rows
        return {"document": row.document, "ours": row.ours, "verdict": row.verdict}
    # Rows of several runtimes have the same figures of the document.
    document = (f"{row.name.split(',')[0]} {row.document}" for row in rows)
    return {
        "document": "; ".join(dict.fromkeys(document)),
        "ours": "; ".join(f"{row.name} {row.ours.split('; ')[0]}" for row in rows),
        "verdict": ", ".join(counts),
    }


def _cells(row: Row) -> list[str]:
    return [row.name, row.document, row.ours, row.verdict, row.why]
