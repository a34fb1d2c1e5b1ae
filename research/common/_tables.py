# SPDX-License-Identifier: Apache-2.0
"""Tables: as Markdown, and of accuracies by sparsity for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from ._records import largest_file, percent


def markdown(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table as Markdown; a line has a text for each column."""
    rows = [columns, ["---"] * len(columns), *lines]
    texts = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([texts[0], texts[1].replace(" ", ""), *texts[2:]])


def for_terminal(
    columns: Sequence[str],
    lines: Iterable[Sequence[str]],
    *,
    title: str,
    caption: str,
) -> Table:
    """A table as rich draws it, with numbers on the right."""
    table = Table(title=title, caption=caption, box=box.SIMPLE, padding=(0, 1, 0, 0))
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right", no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


def accuracy_lines(
    groups: Mapping[tuple[Any, Any], Sequence[Any]], columns: Sequence[Any]
) -> list[list[str]]:
    """A line a row, with the accuracies of the columns.

    Args:
      groups: records by row and column.
      columns: those to show; a row need not have them all.
    """
    names = dict.fromkeys(row for row, _ in groups)
    return [
        [str(name), *(percent(groups.get((name, column), ())) for column in columns)]
        for name in names
    ]


def sparsity_table(
    config: Any,
    examples: int,
    groups: Mapping[tuple[Any, Any], Sequence[Any]],
    *,
    dense: Sequence[Any],
    controls: Collection[str],
    caption: str,
) -> Table:
    """A line a method, a column a sparsity, and the bytes of the largest files.

    Args:
      config: settings with ``sparsities`` and what ``heading`` needs.
      examples: how many were tested.
      groups: records by method and sparsity.
      dense: records of the dense network.
      controls: methods whose files are not counted.
      caption: what stands below.
    """
    pruned = [record for group in groups.values() for record in group]
    sizes = (largest_file(pruned, asked, controls) for asked in config.sparsities)
    return for_terminal(
        ["", *(f"{100 * asked:g} %" for asked in config.sparsities)],
        [
            *accuracy_lines(groups, config.sparsities),
            ["file bytes, largest", *(f"{nbytes:,}" for nbytes in sizes)],
        ],
        title=heading(config, examples, dense),
        caption=caption,
    )


def under_heading(config: Any, note: str, tables: str) -> str:
    """Markdown tables under a line with the data set, the seeds and a note."""
    return f"{config.data}, {config.seeds} seeds, {note}\n\n{tables}"


def headed(
    markdown: Callable[[Sequence[Any]], str], note: str
) -> Callable[[Any, int, Sequence[Any]], str]:
    """``tables`` of a study whose tables need only the records.

    Args:
      markdown: records to Markdown.
      note: what stands above them beside the data set and the seeds.
    """

    def tables(config: Any, examples: int, records: Sequence[Any]) -> str:
        del examples
        return under_heading(config, note, markdown(records))

    return tables


def heading(config: Any, examples: int, dense: Sequence[Any]) -> str:
    """Title of a table of perceptrons: which, on what, and the dense network."""
    widths = "-".join(map(str, config.widths))
    return (
        f"{widths} on {config.data}: test accuracy % ({examples:,} examples, "
        f"{config.seeds} seeds); dense {percent(dense)}"
    )
