# SPDX-License-Identifier: Apache-2.0
"""Tables of the page: one that sorts, and the verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from .._columns import Cell, Column, metric_keys, metric_of
from .._compare import TEST, Verdict, compare
from .._record import Record
from .._text import MISSING
from ._markup import Markup, element


def sortable(shown: Sequence[Column], caption: str) -> Markup:
    """Make a table whose headings sort its rows."""
    groups = [
        element("th", name, colspan=len(list(group)), scope="colgroup", class_="group")
        for name, group in itertools.groupby(shown, lambda column: column.group)
    ]
    heads = element("tr", *(_heading(column) for column in shown))
    rows = zip(*(column.cells for column in shown), strict=True)
    texts = [_is_text(column) for column in shown]
    return _scrolling(
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *groups), heads),
            element("tbody", *(_row(row, texts) for row in rows)),
        ),
        caption,
    )


def _heading(column: Column) -> Markup:
    detail = [element("span", column.detail, class_="detail")] if column.detail else []
    return element(
        "th",
        element("button", column.title, type="button"),
        *detail,
        scope="col",
        data_first="descending" if column.higher_is_better else "ascending",
        class_="text" if _is_text(column) else None,
    )


def _is_text(column: Column) -> bool:
    return not any(isinstance(cell.value, float | int) for cell in column.cells)


def _row(row: Sequence[Cell], texts: Sequence[bool]) -> Markup:
    return element(
        "tr",
        *(
            _cell(cell, "th" if i == 0 else "td", is_text)
            for i, (cell, is_text) in enumerate(zip(row, texts, strict=True))
        ),
    )


def _cell(cell: Cell, tag: str, is_text: bool) -> Markup:
    number = text = None
    if isinstance(cell.value, str):
        text = cell.value
    elif cell.value is not None:
        number = repr(cell.value)
    kind = "missing" if cell.value is None else "text" if is_text else None
    remark = [element("span", cell.remark, class_="remark")] if cell.remark else []
    return element(
        tag,
        cell.text,
        *remark,
        scope="row" if tag == "th" else None,
        class_=kind,
        data_number=number,
        data_text=text,
    )


def verdicts(records: Sequence[Record]) -> Markup | None:
    """Compare every model with the first one, on each metric that both have."""
    first = records[0]
    rows = [
        _verdict(first, record, key)
        for key in metric_keys(records)
        for record in records[1:]
        if metric_of(first, key) and metric_of(record, key)
    ]
    if not rows:
        return None
    heads = ("model", "metric", first.name, "model", "difference", "p")
    titles = [element("th", head, scope="col") for head in heads]
    titles.append(element("th", "verdict", scope="col", class_="text"))
    caption = (
        f"Every model against {first.name}: {TEST}, for each row by itself. Of twenty "
        "models that are equal, one seems to differ."
    )
    return _scrolling(
        element(
            "table",
            element("caption", caption),
            element("thead", element("tr", *titles)),
            element("tbody", *rows),
        ),
        caption,
    )


def _verdict(first: Record, record: Record, key: tuple[str, str, str, bool]) -> Markup:
    verdict = compare(first, record, key[0], split=key[1])
    metrics = [x.metric(key[0], key[1]) for x in (first, record)]
    p = MISSING if verdict.p_value is None else f"{verdict.p_value:.2g}"
    return element(
        "tr",
        element("th", record.name, scope="row"),
        element("td", f"{key[0]} ({key[1]})"),
        *(element("td", metric.summary()) for metric in metrics),
        element("td", metrics[0].show_difference(verdict.difference)),
        element("td", p),
        element("td", _in_short(verdict), class_="text verdict"),
    )


def _in_short(verdict: Verdict) -> str:
    notes = "".join(f"; {note}" for note in verdict.notes)
    if verdict.better is not None:
        return f"{verdict.better} is better{notes}"
    if verdict.seeds_needed is not None:
        return f"none: takes about {verdict.seeds_needed} seeds{notes}"
    return f"none: {verdict.reason}{notes}"


def _scrolling(table: Markup, label: str) -> Markup:
    # What scrolls has to be reachable by keyboard.
    return element(
        "div", table, class_="card scroll", tabindex=0, role="region", aria_label=label
    )
