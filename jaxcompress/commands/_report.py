# SPDX-License-Identifier: Apache-2.0
"""``python -m jaxcompress report``: show records side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import report
from .._atomic import write_bytes


def add(commands: Any) -> None:
    """Add the command."""
    made = commands.add_parser(
        "report",
        help="show records side by side: HTML, Markdown or a picture",
        description="Show the records of some files side by side.",
    )
    made.add_argument(
        "files", type=Path, nargs="+", help=".json files of report.save_records"
    )
    made.add_argument(
        "-o", "--output", type=Path,
        help="ends in .html, .md or .svg; without it, Markdown is printed",
    )  # fmt: skip
    made.add_argument(
        "--merge", action="store_true", help="make one row of runs with different seeds"
    )
    made.add_argument("--title", default="Compressed models", help="of the page")
    made.set_defaults(run=_run)


def _run(settings: Any) -> None:
    records = [r for path in settings.files for r in report.load_records(path)]
    if settings.merge:
        records = report.merge(records)
    output = settings.output
    if output is None:
        print(report.markdown(records), end="")
    elif output.suffix == ".svg":
        report.plot(records, output)
    elif output.suffix == ".html":
        write_bytes(output, report.html(records, title=settings.title).encode())
    elif output.suffix == ".md":
        write_bytes(output, report.markdown(records).encode())
    else:
        raise ValueError(
            f"the output must end in .html, .md or .svg, got {str(output)!r}."
        )
    if output is not None:
        print(f"{output}: {len(records)} models, {output.stat().st_size:,} bytes")
