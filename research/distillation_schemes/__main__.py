# SPDX-License-Identifier: Apache-2.0
"""``python -m research.distillation_schemes``: from settings to tables and a picture."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ..students import Network, Record, Runs, fitted, summary, teachers
from ._config import Config, config_of
from ._rows import ASSISTANT, ASSISTED, INVENTED, ROWS, generation
from ._tables import claims, draw, markdown
from ._train import assisted, born_again, invented


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """All networks; each sees the test set once."""
    del records
    runs = Runs(config, data.train, data.num_classes)
    between = Network(data.num_classes, config.assistant)

    def record(name: str, seed: int, params: Any, model: Network) -> Record:
        accuracy = runs.accuracy(params, data.test, model)
        return Record(part="schemes", name=name, seed=seed, accuracy=accuracy)

    def made_up(seed: int) -> list[Record]:
        setting, images = (
            INVENTED.setting_in(config.chosen),
            invented(runs, config, seed),
        )
        params = runs.fit(INVENTED, setting, images, seed)
        return [record(INVENTED.name, seed, params, runs.student)]

    def generations(seed: int) -> list[Record]:
        again = born_again(runs, config, seed)
        return [
            record(generation(number), seed, params, runs.student)
            for number, params in enumerate(again, start=1)
        ]

    def assistant(seed: int) -> list[Record]:
        middle, student = assisted(runs, config, between, seed)
        return [
            record(ASSISTANT, seed, middle, between),
            record(ASSISTED, seed, student, runs.student),
        ]

    yield common.Job("teachers", partial(teachers, runs, data.test))
    for row, seed in itertools.product(ROWS, range(config.seeds)):
        yield common.Job(
            f"{row.name}, {seed}", partial(fitted, runs, row, seed, data.test)
        )
    for seed in range(config.seeds):
        yield common.Job(f"{INVENTED.name}, {seed}", partial(made_up, seed))
    for seed in range(config.seeds):
        yield common.Job(f"born again, {seed}", partial(generations, seed))
        yield common.Job(f"{ASSISTANT}, {seed}", partial(assistant, seed))


STUDY = common.Study(
    name="distillation_schemes",
    about="Let students teach each other, put an assistant between teacher and student, "
    "and teach with images that are none.",
    config=config_of,
    run=common.runner(
        Record,
        jobs,
        summary=summary,
        tables=common.headed(markdown, "test accuracy %"),
        draw=draw,
        claims=claims,
    ),
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
