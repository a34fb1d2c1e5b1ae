# SPDX-License-Identifier: Apache-2.0
"""``python -m research.distillation``: from settings to tables, a picture and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxcompress import distill

from .. import common
from ..data import Dataset, Split
from ._choose import choose
from ._config import Config, config_of
from ._network import Network
from ._rows import KL_ALONE, KL_OF_CLASSES, LABELS_ALONE, LABELS_OF_CLASSES, Row, rows
from ._tables import TEACHER, TEACHERS, Record, Without, draw, markdown, summary
from ._train import Params, Runs, only_logits

LATER = 1000  # a later generation has another start and another order of the data
BIASES = np.arange(0, 20.25, 0.25)  # what may be added to the logit of an omitted class


def run(config: Config, session: common.Session) -> None:
    """Run the jobs and write the results."""
    data = session.data
    runs = Runs(config, data.train, data.num_classes)
    records = session.run(Record, partial(jobs, runs, data))
    without = session.run(
        Without, partial(omitted_jobs, runs, data), file="without.json"
    )
    tables = common.under_heading(
        config, "test accuracy %", markdown(records, without, data.classes)
    )
    session.finish(
        {"classes": list(data.classes), **summary(records, without)},
        tables,
        partial(draw, records, without, data.classes),
    )


def jobs(
    runs: Runs, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """All networks but those that lack a class; each sees the test set once."""
    del records
    config = runs.config

    def teachers() -> list[Record]:
        logits = [
            jnp.asarray(runs.logits(runs.teacher(seed), data.test.x))
            for seed in range(config.teachers)
        ]
        each = [(TEACHER, seed, x) for seed, x in enumerate(logits)]
        together = (TEACHERS, 0, distill.ensemble(jnp.stack(logits)))
        return [
            Record(
                part="teachers",
                name=name,
                seed=seed,
                accuracy=common.right(np.asarray(x), data.test),
            )
            for name, seed, x in (*each, together)
        ]

    def record(part: str, name: str, seed: int, params: Any, model: Network) -> Record:
        accuracy = runs.accuracy(params, data.test, model)
        return Record(part=part, name=name, seed=seed, accuracy=accuracy)

    def student(row: Row, seed: int) -> list[Record]:
        setting = row.setting_in(config.chosen)
        by = range(config.teachers) if row.ensemble else [seed % config.teachers]
        transfer = runs.transfer(seed, by, row.views, setting.temperature)
        params = runs.fit(row, setting, transfer, seed)
        return [record(row.part, row.name, seed, params, runs.student)]

    def generations(seed: int) -> list[Record]:
        again = born_again(runs, seed)
        return [
            record("schemes", f"born again, {number}", seed, params, runs.student)
            for number, params in enumerate(again, start=1)
        ]

    def assistant(seed: int) -> list[Record]:
        between, student = assisted(runs, seed)
        return [
            record("schemes", "assistant", seed, between, runs.assistant),
            record("schemes", "kl, by the assistant", seed, student, runs.student),
        ]

    yield common.Job("teachers", teachers)
    for row, seed in itertools.product(rows(quick=config.quick), range(config.seeds)):
        yield common.Job(f"{row.name}, {seed}", partial(student, row, seed))
    for seed in range(config.seeds):
        yield common.Job(f"born again, {seed}", partial(generations, seed))
        yield common.Job(f"assistant, {seed}", partial(assistant, seed))


def born_again(runs: Runs, seed: int) -> Sequence[Params]:
    """Students, each taught by the one before, and the first by one that was alone."""
    share = runs.transfer(seed, [seed % runs.config.teachers])
    setting = LABELS_ALONE.setting_in(runs.config.chosen)
    alone = runs.fit(LABELS_ALONE, setting, share, seed)
    starts = (seed + LATER * n for n in range(1, runs.config.generations + 1))
    taught = [
        partial(_taught, runs, runs.student, runs.student, seed, s) for s in starts
    ]
    return distill.generations(alone, taught)[1:]


def assisted(runs: Runs, seed: int) -> tuple[Params, Params]:
    """A teacher's assistant and its student."""
    _, assistant, student = distill.generations(
        runs.teacher(seed % runs.config.teachers),
        [
            partial(_taught, runs, None, runs.assistant, seed, seed),
            partial(_taught, runs, runs.assistant, runs.student, seed, seed),
        ],
    )
    return assistant, student


def _taught(
    runs: Runs,
    teacher: Network | None,
    model: Network,
    seed: int,
    start: int,
    params: Params,
) -> Params:
    """A network trained on the share of a seed, by a teacher with ``params``."""
    share = runs.transfer(seed, [seed % runs.config.teachers])
    if teacher is not None:
        share = share._replace(
            teacher=only_logits(runs.logits(params, share.x, teacher))
        )
    return runs.fit(
        KL_ALONE, KL_ALONE.setting_in(runs.config.chosen), share, start, model=model
    )


def omitted_jobs(
    runs: Runs, data: Dataset, records: Sequence[Without]
) -> Iterator[common.Job[Without]]:
    """Hinton's omitted class: students without a class, each in turn, and with all."""
    del records
    config = runs.config

    def student(
        seed: int, omitted: int | None, temperature: float | None
    ) -> list[Without]:
        row = LABELS_OF_CLASSES if temperature is None else KL_OF_CLASSES
        setting = row.setting_in(config.chosen)
        if temperature is not None:
            setting = dataclasses.replace(setting, temperature=temperature)
        kept = np.flatnonzero(data.train.y != (-1 if omitted is None else omitted))
        size = config.teacher_batch
        steps = config.omitted_epochs * (len(data.train) // size)
        params = runs.fit(
            row,
            setting,
            runs.whole(seed % config.teachers),
            seed,
            order=kept[runs.order_of(len(kept), size, seed, steps)],
        )
        validation, test = (
            runs.logits(params, split.x, runs.student)
            for split in (data.validation, data.test)
        )
        records = []
        for of in config.omitted if omitted is None else (omitted,):
            bias = raised(validation, data.validation, of)
            before, after = (rates(test, data.test, of, b) for b in (0, bias))
            records.append(
                Without(
                    method=row.name,
                    temperature=temperature,
                    saw=omitted is None,
                    omitted=of,
                    seed=seed,
                    recall=before[0],
                    accuracy=before[1],
                    bias=bias,
                    raised_recall=after[0],
                    raised_accuracy=after[1],
                )
            )
        return records

    each = itertools.product(
        range(config.seeds),
        (None, *config.omitted),
        (None, *config.omitted_temperatures),
    )
    for seed, omitted, temperature in each:
        loss = "labels" if temperature is None else f"kl, T = {temperature:g}"
        title = f"without {omitted}, {loss}, {seed}"
        yield common.Job(title, partial(student, seed, omitted, temperature))


def rates(
    logits: np.ndarray, split: Split, omitted: int, bias: float
) -> tuple[float, float]:
    """Recall of the class and accuracy, with so much more for its logit."""
    logits = logits.copy()
    logits[:, omitted] += bias
    right = logits.argmax(-1) == split.y
    return float(right[split.y == omitted].mean()), float(right.mean())


def raised(logits: np.ndarray, validation: Split, omitted: int) -> float:
    """The smallest bias with the best accuracy."""
    accuracies = [rates(logits, validation, omitted, bias)[1] for bias in BIASES]
    return float(BIASES[int(np.argmax(accuracies))])


STUDY = common.Study(
    name="distillation",
    about="Train a small student on a few labels, alone and with each distillation "
    "loss; let students teach each other; leave a class out of what the student "
    "is shown.",
    config=config_of,
    run=run,
    choose=choose,
    setting="chosen",
    shown=lambda choice: {name: row["chosen"] for name, row in choice["rows"].items()},
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
