# SPDX-License-Identifier: Apache-2.0
"""From settings to tables, a picture and a JSON file."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from jaxcompress import distill

from .. import old_common as common
from ..data import Dataset
from . import _omitted as omitted
from ._choose import choose, trials
from ._config import Config, config_of
from ._omitted import Without
from ._picture import draw
from ._rows import Row, rows
from ._runs import Runs
from ._schemes import assisted, born_again
from ._table import TEACHER, TEACHERS, Record, markdown, summary

_ABOUT = (
    "Train a small student on a few labels, alone and with each distillation loss; let "
    "students teach each other; leave a class out of what the student is shown."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the tables; returns the exit status."""
    return common.main("distillation", _ABOUT, study, argv, chooses=True)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(
        options.data, seeds=options.seeds, quick=options.quick, choose=options.choose
    )
    session = common.Session(options, config.as_json())
    data = session.data
    if options.choose:
        with session.progress(trials(config)) as progress:
            made = choose(
                config, data.train, data.validation, data.num_classes, progress
            )
        chosen = {name: row["chosen"] for name, row in made["rows"].items()}
        return session.chose(made, setting="chosen", shown=chosen)
    with session.progress(total(config)) as progress:
        records, without = run(config, data, progress)
    tables = markdown(records, without, data.classes)
    session.finish(
        {"classes": list(data.classes), **summary(records, without)},
        f"{config.data}, {config.seeds} seeds, test accuracy %\n\n{tables}",
        lambda file: draw(records, without, data.classes, file),
    )


def total(config: Config) -> int:
    """How many students, and networks between, are trained."""
    each = len(rows(quick=config.quick)) + config.generations + 2
    return config.seeds * (each + omitted.total(config))


def run(
    config: Config, data: Dataset, progress: common.Progress
) -> tuple[list[Record], list[Without]]:
    """Train everything; the test set is looked at once a network."""
    runs = Runs(config, data.train, data.num_classes)
    records = teachers(config, runs, data, progress)
    for row in rows(quick=config.quick):
        records += students(row, runs, data, progress)
    without: list[Without] = []
    for seed in range(config.seeds):
        records += taught_by_others(runs, data, seed, progress)
        without += omitted.run(config, runs, data, seed, progress)
    return records, without


def teachers(
    config: Config, runs: Runs, data: Dataset, progress: common.Progress
) -> list[Record]:
    """Each teacher, and all of them as one."""
    logits = []
    for seed in range(config.teachers):
        progress.start(f"teacher, {seed}")
        logits.append(jnp.asarray(runs.logits(runs.teacher(seed), data.test.x)))
    together = distill.ensemble(jnp.stack(logits))
    named = [(TEACHER, seed, x) for seed, x in enumerate(logits)]
    return [
        Record(
            part="teachers",
            name=name,
            seed=seed,
            accuracy=float((np.asarray(x).argmax(-1) == data.test.y).mean()),
        )
        for name, seed, x in (*named, (TEACHERS, 0, together))
    ]


def students(
    row: Row, runs: Runs, data: Dataset, progress: common.Progress
) -> list[Record]:
    """The students of a row, each on the share of its seed."""
    config, records = runs.config, []
    setting = row.given(config.chosen)
    for seed in range(config.seeds):
        progress.start(f"{row.name}, {seed}")
        taught = range(config.teachers) if row.ensemble else [seed % config.teachers]
        transfer = runs.transfer(seed, taught, row.views, setting.temperature)
        params = runs.fit(row, setting, transfer, seed)
        accuracy = runs.accuracy(params, data.test, runs.student)
        records.append(
            Record(part=row.part, name=row.name, seed=seed, accuracy=accuracy)
        )
        progress.done()
    return records


def taught_by_others(
    runs: Runs, data: Dataset, seed: int, progress: common.Progress
) -> list[Record]:
    """Generations of students, and the student of an assistant."""
    config = runs.config
    progress.start(f"born again, {seed}")
    again = born_again(runs, seed, config.generations)
    networks = [
        (f"born again, {number}", params, runs.student)
        for number, params in enumerate(again, start=1)
    ]
    progress.start(f"assistant, {seed}")
    assistant, student = assisted(runs, seed)
    networks.append(("assistant", assistant, runs.assistant))
    networks.append(("kl, by the assistant", student, runs.student))
    records = []
    for name, params, model in networks:
        accuracy = runs.accuracy(params, data.test, model)
        records.append(Record(part="schemes", name=name, seed=seed, accuracy=accuracy))
        progress.done()
    return records
