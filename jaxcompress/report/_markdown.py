# SPDX-License-Identifier: Apache-2.0
"""Format records as a Markdown table."""

from __future__ import annotations

from collections.abc import Sequence

from ._columns import columns
from ._record import Record, check_records


def markdown(records: Sequence[Record]) -> str:
    """Format records as a Markdown table, to compare models side by side.

    Each record is a row. Columns are the fields that at least one record has. What cannot
    be compared stands in different columns: metrics of different splits, latencies on
    different devices or runtimes, energies by different methods. The output is
    deterministic.

    Args:
      records: records in the order of the rows.

    Raises:
      ValueError: if ``records`` is empty.
    """
    check_records(records)
    shown = columns(records)
    titles = [c.title + (f" ({c.detail})" if c.detail else "") for c in shown]
    cells = [[cell.text for cell in column.cells] for column in shown]
    rows = [titles, ["---"] * len(shown), *zip(*cells, strict=True)]
    return "".join(f"| {' | '.join(map(_escape, row))} |\n" for row in rows)


def _escape(text: str) -> str:
    return " ".join(text.replace("|", "\\|").splitlines())
