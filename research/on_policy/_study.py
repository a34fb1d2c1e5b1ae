# SPDX-License-Identifier: Apache-2.0
"""From settings to a table, a picture and a JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from .. import old_common as common
from ..data import Dataset
from ._choose import choose, trials
from ._config import Config, config_of
from ._judge import compare, cost, own
from ._picture import draw
from ._rows import rows
from ._runs import Params, Runs
from ._table import TEACHER, WARM, Record, markdown, summary

_ABOUT = (
    "Distill a small language model of characters on the text, on what its teacher "
    "writes, and on what it writes itself."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    return common.main(
        "on_policy", _ABOUT, study, argv, data=("shakespeare",), chooses=True
    )


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(seeds=options.seeds, quick=options.quick)
    session = common.Session(options, dataclasses.asdict(config))
    data = session.data
    if options.choose:
        with session.progress(trials()) as progress:
            made = choose(
                config, data.train, data.validation, data.num_classes, progress
            )
        return session.chose(made, setting="rates")
    with session.progress(len(rows(quick=config.quick))) as progress:
        records, rollout = run(config, data, progress, range(config.seeds))
    cost = (
        f"A batch of rollouts: {rollout['steps']:.0f} ms by steps, "
        f"{rollout['passes']:.0f} ms by whole passes."
    )
    session.finish(
        {"rollout_milliseconds": rollout, **summary(records)},
        f"{markdown(records)}\n\n{cost}",
        lambda file: draw(records, file),
    )


def run(
    config: Config, data: Dataset, progress: common.Progress, seeds: Sequence[int]
) -> tuple[list[Record], dict[str, float]]:
    """Train every network and judge it on the test set once; and the cost of rollouts."""
    runs = Runs(config, data.num_classes, data.train)
    progress.start(TEACHER)
    teacher = runs.teacher()
    students = runs.warm(seeds)

    def record(
        row: str, params: Params, seed: int, milliseconds: float | None = None
    ) -> Record:
        of_text = compare(params, teacher, data.test.x, config)
        of_own = own(params, teacher, data.test.x, config, seed)
        return Record(
            row=row,
            seed=seed,
            bits=of_text.student,
            kl=of_text.kl,
            own_kl=of_own.kl,
            own_reverse_kl=of_own.reverse_kl,
            likely=of_own.teacher,
            entropy=of_own.student,
            milliseconds=milliseconds,
        )

    records = [record(TEACHER, teacher, 0)]
    records += map(record, [WARM] * len(seeds), students, seeds)
    for row in rows(quick=config.quick):
        progress.start(row.name)
        made, seconds = runs.trained(row, students, teacher, seeds)
        milliseconds = 1000 * seconds / config.steps / len(seeds)
        for params, seed in zip(made, seeds, strict=True):
            records.append(record(row.name, params, seed, milliseconds))
        progress.done()
    return records, cost(students[0], data.train.x, config)
