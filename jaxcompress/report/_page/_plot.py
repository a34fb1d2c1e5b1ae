# SPDX-License-Identifier: Apache-2.0
"""A Pareto picture as a file of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..._atomic import write_bytes
from .._record import Record, check_records
from ._markup import Markup, raw
from ._scatter import charts, draw
from ._style import PICTURES


def plot(
    records: Sequence[Record],
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
    against: str = "file size",
) -> None:
    """Draw a metric against a cost, with the models that nothing else beats, as SVG.

    The picture follows the reader's choice of light or dark.

    Args:
      records: at least two that were measured alike: same split, and for latency the same
        runtime, device, threads and batch.
      path: path of the file; it must end in ``.svg``.
      metric: name of the metric; None takes the first.
      against: ``"file size"`` or ``"latency"``.

    Raises:
      ValueError: if no two records can be compared, more than one picture is meant, or
        the path does not end in ``.svg``.
      OSError: if the file cannot be written.
    """
    check_records(records)
    path = Path(path)
    if path.suffix != ".svg":
        raise ValueError(f"the path must end in .svg, got {str(path)!r}.")
    possible = charts(records)
    found = [
        chart
        for chart in possible
        if chart.title.endswith(f" against {against}")
        and metric in (None, chart.dots[0].metric.name)
    ]
    if len(found) != 1 and not (found and metric is None):
        known = "; ".join(f"{c.title} ({c.cost})" for c in possible) or "none"
        raise ValueError(
            f"metric={metric!r} and against={against!r} must mean one picture of two or "
            f"more records that were measured alike, found {len(found)}. There are: "
            f"{known}."
        )
    picture = draw(found[0])
    head, rest = picture.split(">", 1)
    background = "svg { background: var(--card); }"
    style = raw("style", f"{PICTURES}\n{background}")
    write_bytes(path, Markup(f"{head}>{style}{rest}\n").encode())
