# SPDX-License-Identifier: Apache-2.0
"""Tables made from the results of benchmarks, and where those were measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _results

_AGAIN = " (again)"
_NOT_SHOWN = ("jaxlib", "flax", "optax", "numpy")  # they are in the results

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Whole:
    """A row whose name in the results is the same in every column."""

    name: str


Key = str | tuple[str, ...] | Whole


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
      title: above it.
      results: name of the file with its results, without the ending.
      value: the text for a row of the results.
      row: name of the row in the results, made from the row of the table.
    """

    title: str
    results: str
    value: Callable[[Row], str]
    row: str = "{}"

    def of(self, key: Key) -> str:
        """Return the name in the results of a row of the table."""
        if isinstance(key, Whole):
            return key.name
        return self.row.format(*((key,) if isinstance(key, str) else key))


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      columns: after the first, which names the rows.
      rows: their texts, by the names that columns make names of results from; None: the
        rows of the first column's results, without the baseline.
      corner: above the names of the rows.
    """

    columns: Sequence[Column]
    rows: Mapping[Key, str] | None = None
    corner: str = ""


def number(x: float) -> str:
    """Return three digits of a number, or all before the point."""
    return f"{x:,.0f}" if abs(x) >= 99.95 else f"{x:#.3g}".rstrip(".")


def ratio(row: Row) -> str:
    """Return a ratio to the baseline, with its quartiles; nothing of what has no time."""
    if "ratio" not in row:
        return ""
    low, middle, high = map(number, row["ratio"])
    return f"{middle} [{low}, {high}]"


def speed(row: Row) -> str:
    """Return how many times as fast as the baseline something is."""
    return f"{1 / row['ratio'][1]:#.2g}".rstrip(".")


def aim(row: Row) -> str:
    """Return what the ratio should be."""
    return (row["aim"] or "").removeprefix("<= ")


def milliseconds(name: str = "median") -> Callable[[Row], str]:
    """Return a time in milliseconds: ``first``, ``minimum``, ``median`` or ``p90``."""
    return lambda row: number(1e3 * row[name])


def extra(name: str, form: str = "{}", instead: str = "") -> Callable[[Row], str]:
    """Return what a benchmark knows besides times, in a form such as ``{:.2f}``.

    Args:
      name: of what is known.
      form: how it is written.
      instead: name of the text that is known where the other is not.
    """

    def text(row: Row) -> str:
        value = row["extra"].get(name)
        if value is None:
            return row["extra"].get(instead, "")
        return form.format(value)

    return text


def rendered(table: Table, folder: Path) -> str:
    """Return the Markdown of a table, and of the line below it.

    Raises:
      OSError: if the results of a column are missing.
      ValueError: if a row or a column of the table is in no results.
    """
    names = dict.fromkeys(column.results for column in table.columns)
    runs = {name: _run(folder, name) for name in names}
    rows = table.rows or _rows(table.columns[0], runs)
    found = [[_cell(column, row, runs) for column in table.columns] for row in rows]
    columns = list(zip(*found, strict=True))
    missing = [row for row, cells in zip(rows, found, strict=True) if not any(cells)]
    missing += [
        column.title
        for column, cells in zip(table.columns, columns, strict=True)
        if all(cell is None for cell in cells)
    ]
    if missing:
        raise ValueError(
            f"{', '.join(names)}: no results for {missing}. They have "
            f"{[row['name'] for run in runs.values() for row in run['rows']]}."
        )
    lines = [
        [table.corner, *(column.title for column in table.columns)],
        ["---"] * (1 + len(table.columns)),
        *(
            [text, *(cell or "" for cell in cells)]
            for text, cells in zip(rows.values(), found, strict=True)
        ),
    ]
    text = "".join(_line(cells) for cells in lines)
    return f"{text}\n{_measured(runs.values())}\n"


def _line(cells: Sequence[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|\n"


def _run(folder: Path, name: str) -> _results.Run:
    path = folder / f"{name}.json"
    try:
        (run,) = _results.read(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"there are no results {str(path)!r}. Run python -m benchmarks "
            f"{name.split('-')[0]}, with the options that this name has."
        ) from error
    return run


def _rows(column: Column, runs: Mapping[str, _results.Run]) -> dict[Key, str]:
    """Return the names of all rows of results, the baseline once."""
    names = [row["name"] for row in runs[column.results]["rows"]]
    twice = {name.removesuffix(_AGAIN) for name in names if name.endswith(_AGAIN)}
    return {
        name: name.replace(_AGAIN, ", again (noise)")
        for name in names
        if name not in twice
    }


def _cell(column: Column, key: Key, runs: Mapping[str, _results.Run]) -> str | None:
    """Return the text of a cell, or None if these results have no such row."""
    wanted = column.of(key)
    for found in runs[column.results]["rows"]:
        if found["name"] == wanted:
            return column.value(found)
    return None


def _measured(runs: Iterable[_results.Run]) -> str:
    """Say by which commands, where and when runs were made."""
    places: dict[str, list[_results.Run]] = {}
    for run in runs:
        shown = [f"{n} {v}" for n, v in run["versions"].items() if n not in _NOT_SHOWN]
        place = f"{run['device']}, {run['machine']}, {run['cpu_count']} cores"
        places.setdefault(f"{place}; {', '.join(shown)}", []).append(run)
    return "\n\n".join(_at(place, made) for place, made in places.items())


def _at(place: str, runs: Sequence[_results.Run]) -> str:
    commands = ", ".join(f"`{run['command']}`" for run in runs)
    loads = sorted(run["load"] for run in runs if "load" in run)
    load = " to ".join(str(x) for x in dict.fromkeys([*loads[:1], *loads[-1:]]))
    dates = " to ".join(sorted({run["date"] for run in runs}))
    commits = ", ".join(sorted({_short(run["commit"]) for run in runs}))
    return (
        f"Measured by {commands} ({place}; load before it: {load or 'unknown'}; {dates}, "
        f"commit {commits})."
    )


def _short(commit: str | None) -> str:
    """Return the first digits of a commit, and whether files had changed since."""
    digits, *changed = (commit or "unknown").split("-")
    return "-".join([digits[:7], *changed])
