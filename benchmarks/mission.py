# SPDX-License-Identifier: Apache-2.0
"""The mission's ten tables: what its document claims, and what we measure on real data.

Three networks (LeNet-300-100, a convolutional network of 1.2 million parameters and a
residual network) are trained on Fashion-MNIST for each seed, and every compressed network
comes from one of them. What a run chooses (the ratios of table 2, the students' rates), it
chooses on the validation split. A row is better than the document's if every part of it is:
less accuracy lost, at a larger factor. Where the seeds cannot tell, it is open, and where
it is not better, the row says why.

--quick takes one seed and fewer steps, under 10 minutes on 2 cores, and gives no verdicts
on accuracy or time, which take two seeds. Runtimes that are not installed are left
out: pip install -e ".[litert,onnx]". The page and the records are written to --report.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from jaxcompress import report

from . import _harness
from ._mission import _run, _settings, _show, _tables


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    full, quick = _settings.FULL.rounds, _settings.QUICK.rounds
    made = _harness.parser(
        "mission",
        __doc__,
        rounds=full,
        quick=quick,
        about_quick="one seed and fewer steps; real data",
    )
    made.add_argument("--seeds", type=int, help="how many; default 3, 1 if quick")
    made.add_argument("--tiny", action="store_true", help="seconds: does it run?")
    made.add_argument(
        "--report",
        type=Path,
        default=Path("results/mission"),
        help="folder for the page and the records; results/mission",
    )
    settings = _harness.parse(made, argv)
    if settings.seeds is None:
        settings.seeds = 1 if settings.quick or settings.tiny else 3
    if settings.seeds < 1:
        made.error(f"--seeds {settings.seeds}: 1 or more")
    settings.quick |= settings.tiny
    console = Console() if Console().is_terminal else Console(width=160)
    records = _run.records(
        _chosen(settings), range(settings.seeds), settings.report, console
    )
    tables = _tables.made(_tables.by_name(records))
    _show.terminal(tables, console)
    page = report.html(
        report.merge(records),
        title="What the mission claims, and what we measure",
        sections=_show.sections(tables),
    )
    file = settings.report / "mission.html"
    file.write_text(page, encoding="utf-8")
    report.save_records(settings.report / "records.json", *report.merge(records))
    console.print(f"The page: {file}")
    _harness.record(_show.results(tables), settings)


def _chosen(settings: object) -> _settings.Settings:
    """Return the settings of the run that was asked for."""
    asked = vars(settings)
    chosen = _settings.QUICK if asked["quick"] else _settings.FULL
    if asked["tiny"]:
        return dataclasses.replace(_settings.TINY, rounds=2)
    return dataclasses.replace(chosen, rounds=asked["rounds"])


if __name__ == "__main__":
    main()
