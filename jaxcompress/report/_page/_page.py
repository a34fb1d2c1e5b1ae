# SPDX-License-Identifier: Apache-2.0
"""The page: a table that sorts, Pareto pictures, bars by leaf, and where it comes from."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence

from .._columns import columns
from .._record import Record, check_records
from ._bars import bytes_by_leaf, macs_by_site
from ._markup import Markup, element, raw
from ._scatter import charts, draw
from ._script import SCRIPT
from ._sections import Section, section
from ._style import PAGE
from ._tables import sortable, verdicts

_NOTES = (
    "Bytes are those of the file, which was decoded again and compared. The order-0 bound "
    "is what a coder needs that knows how often each value occurs, and nothing else.",
    "Operations are counted from the program, not measured. Zeros and few bits save work "
    "only on hardware that exploits them.",
    "Latencies are compared only within one runtime, device, number of threads and batch. "
    "Compilation is not part of them. Simulated models compute in floats: they are no "
    "faster.",
    "Energy is read from a hardware counter, with the idle power subtracted, or it is "
    "unavailable. The operation model is an estimate from a table for 45 nm (Horowitz, "
    "ISSCC 2014): compare its values with each other only. No gain: hardware that treats "
    "every number as float32. Full gain: hardware that gains from every zero and bit.",
)


def html(
    records: Sequence[Record],
    *,
    title: str = "Compressed models",
    sections: Sequence[Section] = (),
) -> str:
    """Show records as one HTML page that needs no network.

    The table sorts by any column. Nothing else beats the filled dots of the pictures.
    The page follows the reader's choice of light or dark, and loads nothing.

    Args:
      records: in the order of the rows.
      title: heading of the page.
      sections: tables of texts to show before the records.

    Raises:
      ValueError: if ``records`` is empty.

    Example:
      >>> from jaxcompress import report
      >>> accuracy = report.accuracy([0.9], [0], split="test")
      >>> here = report.provenance()
      >>> record = report.Record(name="dense", provenance=here, metrics=[accuracy])
      >>> report.html([record]).startswith("<!doctype html>")
      True
    """
    check_records(records)
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_policy()),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        raw("style", PAGE),
    )
    main = element(
        "main",
        element("h1", title),
        element("p", _origin(records), class_="soft"),
        *map(section, sections),
        *([element("h2", "Models")] if sections else []),
        *_body(records),
    )
    body = element("body", main, raw("script", SCRIPT))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _policy() -> str:
    """Allow this style and this script, and nothing from anywhere."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    return (
        f"default-src 'none'; style-src 'sha256-{digest(PAGE)}'; "
        f"script-src 'sha256-{digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )


def _origin(records: Sequence[Record]) -> str:
    made = [record.provenance for record in records]
    parts = [f"{len(records)} model{'s' if len(records) > 1 else ''}"]
    versions = (f"jaxcompress {p.versions.get('jaxcompress', 'unknown')}" for p in made)
    parts += [*dict.fromkeys(versions), *dict.fromkeys(p.device for p in made)]
    commits = dict.fromkeys(p.commit[:12] for p in made if p.commit)
    return " · ".join([*parts, *(f"commit {commit}" for commit in commits)])


def _body(records: Sequence[Record]) -> Iterator[Markup]:
    shown = [column for column in columns(records) if column.group != "note"]
    main = [column for column in shown if column.is_main]
    yield sortable(main, "Click a heading to sort. ± is the spread over seeds.")
    if found := charts(records):
        yield element("h2", "What is worth its cost")
        yield element(
            "p",
            "No other model is as good for less than a filled one.",
            class_="soft",
        )
        yield element(
            "div",
            *(
                element(
                    "figure", element("h3", chart.title), draw(chart), class_="card"
                )
                for chart in found
            ),
            class_="pictures",
        )
    if decided := verdicts(records):
        yield element("h2", "What the seeds can tell")
        yield decided
    yield element("h2", "Every model")
    for i, record in enumerate(records):
        yield _details(record, is_open=i == 0 and len(records) <= 12)
    if len(shown) > len(main):
        yield element("h2", "All measurements")
        yield sortable(shown, "Columns differ where values cannot be compared.")
    yield element("h2", "How to read this page")
    yield element("ul", *(element("li", note) for note in _NOTES))


def _details(record: Record, *, is_open: bool) -> Markup:
    steps = ", then ".join(record.provenance.transforms)
    pictures = [
        record.size and bytes_by_leaf(record.size),
        record.count and macs_by_site(record.count),
    ]
    facts = [
        (element("dt", name), element("dd", text))
        for name, text in _facts(record)
        if text
    ]
    return element(
        "details",
        element(
            "summary",
            record.name,
            element("span", steps or "no transforms", class_="soft"),
        ),
        element("dl", *(part for pair in facts for part in pair)),
        element("div", *filter(None, pictures), class_="pictures"),
        class_="card",
        open="" if is_open else None,
    )


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    made = record.provenance
    for metric in record.metrics:
        seeds = ", ".join(map(str, metric.seeds))
        yield f"{metric.name} ({metric.split})", f"{metric.summary()}; seeds {seeds}"
    if record.latency is not None:
        simulated = "; simulated, no speed-up expected" if record.simulated else ""
        yield "latency", f"{record.latency}{simulated}"
    yield "memory", str(record.memory or "")
    yield "energy", str(record.energy)
    if record.energy_model is not None:
        yield "model, no gain", str(record.energy_model.no_gain)
        yield "model, full gain", str(record.energy_model.full_gain)
    if record.count is not None:
        unknown = [*record.count.unknown, *(o.name for o in record.count.opaque)]
        yield "not fully counted", ", ".join(unknown)
    yield "device", made.device
    yield "versions", ", ".join(f"{n} {v}" for n, v in made.versions.items())
    yield "commit", made.commit or ""
    yield "command", made.command or ""
