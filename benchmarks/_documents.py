# SPDX-License-Identifier: Apache-2.0
"""Documents whose tables are written from the results of benchmarks.

A document says where a table goes, and ``_documented`` what is in it:

    <!-- table: structured -->
    ... written by python -m benchmarks tables ...
    <!-- end of table -->
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import _results
from ._documented import TABLES
from ._tables import Table, rendered

ROOT = Path(__file__).parents[1]
_GLOBS = ("*.md", "benchmarks/*.md", "docs/*.md")
_BEGIN, _END = "<!-- table:", "<!-- end of table -->"
_MARKED = re.compile(rf"{_BEGIN} (?P<name>[^\n]*?) -->\n.*?{_END}", re.S)


def rewritten(text: str, tables: Mapping[str, Table], folder: Path) -> str:
    """Return a document with its tables written anew.

    Raises:
      OSError: if the results of a table are missing.
      ValueError: if a marker names no table, or has no end.
    """
    places = list(_MARKED.finditer(text))
    if not len(places) == text.count(_BEGIN) == text.count(_END):
        raise ValueError(
            f"there are {text.count(_BEGIN)} lines '{_BEGIN} NAME -->' and "
            f"{text.count(_END)} lines '{_END}': each table has one of both."
        )
    for place in places:
        if place["name"] not in tables:
            raise ValueError(
                f"'{_BEGIN} {place['name']} -->': there is no such table in "
                f"benchmarks/_documented.py. There are {', '.join(tables)}."
            )

    def table(place: re.Match[str]) -> str:
        name = place["name"]
        return f"{_BEGIN} {name} -->\n{rendered(tables[name], folder)}{_END}"

    return _MARKED.sub(table, text)


def documents(root: Path) -> list[Path]:
    """Return the documents that may have tables."""
    return sorted(path for glob in _GLOBS for path in root.glob(glob))


def main(
    argv: Sequence[str] | None = None,
    *,
    root: Path = ROOT,
    tables: Mapping[str, Table] = TABLES,
    folder: Path = _results.FOLDER,
) -> int:
    """Write the tables of all documents, or say which are stale; 1 if some are."""
    made = argparse.ArgumentParser(prog="python -m benchmarks tables")
    made.add_argument("--check", action="store_true", help="say which are stale")
    settings = made.parse_args(argv)
    stale = False
    for path in documents(root):
        old = path.read_text(encoding="utf-8")
        name = path.relative_to(root)
        try:
            new = rewritten(old, tables, folder)
        except (OSError, ValueError) as error:
            print(f"error: {name}: {error}", file=sys.stderr)
            return 2
        if new == old:
            continue
        stale = True
        print(f"stale: {name}" if settings.check else f"written: {name}")
        if not settings.check:
            path.write_text(new, encoding="utf-8")
    if not stale:
        print("all tables are current")
    return int(stale and settings.check)
