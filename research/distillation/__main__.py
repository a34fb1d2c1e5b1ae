# SPDX-License-Identifier: Apache-2.0
"""``python -m research.distillation``: from settings to tables, a picture and JSON."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial

from .. import common
from ..data import Dataset
from ..students import Record, Runs, fitted, summary, teachers
from ._choose import choose
from ._config import Config, config_of
from ._rows import rows
from ._tables import claims, draw, markdown


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """All networks; each sees the test set once."""
    del records
    runs = Runs(config, data.train, data.num_classes)
    yield common.Job("teachers", partial(teachers, runs, data.test))
    for row, seed in itertools.product(rows(quick=config.quick), range(config.seeds)):
        yield common.Job(
            f"{row.name}, {seed}", partial(fitted, runs, row, seed, data.test)
        )


STUDY = common.Study(
    name="distillation",
    about="Train a small student on a few labels, alone and with each distillation loss.",
    config=config_of,
    run=common.runner(
        Record,
        jobs,
        summary=summary,
        tables=common.headed(markdown, "test accuracy %"),
        draw=draw,
        claims=claims,
    ),
    choose=choose,
    setting="chosen",
    shown=lambda choice: {name: row["chosen"] for name, row in choice["rows"].items()},
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
