# SPDX-License-Identifier: Apache-2.0
"""``python -m research.omitted_class``: from settings to a table, a picture and JSON."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from .. import common
from ..data import Dataset, Split
from ..students import ALONE, KL, Row, Runs, kl
from ._config import Config, config_of
from ._tables import Record, claims, draw, markdown, summary

BIASES = np.arange(0, 20.25, 0.25)  # what may be added to the logit of an omitted class
LABELS, TAUGHT = (
    Row("labels", None, setting=ALONE),
    Row(KL, kl, setting=KL, labels=False),
)


def run(config: Config, session: common.Session) -> None:
    """Run the jobs and write the results."""
    data = session.data
    records = session.run(Record, partial(jobs, config, data))
    table = markdown(records, data.classes)
    session.finish(
        summary(records, data.classes),
        common.under_heading(config, "right answers, %", table),
        partial(draw, records, data.classes),
        claims(records),
    )


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Students without a class, each in turn, and with all."""
    del records
    runs = Runs(config, data.train, data.num_classes)

    def student(
        seed: int, omitted: int | None, temperature: float | None
    ) -> list[Record]:
        row = LABELS if temperature is None else TAUGHT
        setting = row.setting_in(config.chosen)
        if temperature is not None:
            setting = dataclasses.replace(setting, temperature=temperature)
        kept = np.flatnonzero(data.train.y != (-1 if omitted is None else omitted))
        size = config.teacher_batch
        steps = config.omitted_epochs * (len(data.train) // size)
        order = kept[runs.order_of(len(kept), size, seed, steps)]
        whole = runs.whole(seed % config.teachers)
        params = runs.fit(row, setting, whole, seed, order=order)
        validation, test = (
            runs.logits(params, split.x, runs.student)
            for split in (data.validation, data.test)
        )
        made = []
        for of in config.omitted if omitted is None else (omitted,):
            bias = raised(validation, data.validation, of)
            before, after = (rates(test, data.test, of, b) for b in (0, bias))
            made.append(
                Record(
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
        return made

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
    name="omitted_class",
    about="Leave a class out of what a student is shown, and see whether it recognizes "
    "the class from a teacher's answers to the others.",
    config=config_of,
    run=run,
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
