# SPDX-License-Identifier: Apache-2.0
"""``python -m research.temperature``: from settings to tables and JSON files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from .. import common
from ..data import Dataset
from ..stages import Record, Runs, each, of_row, summary
from ._choose import choose
from ._config import Config, config_of
from ._rows import of_temperatures, of_weights
from ._tables import claims, draw, markdown


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Make every network with every seed; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    make = partial(of_row, runs, data.test, records)
    yield from each(make, of_temperatures(config), config.seeds)
    yield from each(make, of_weights(config), config.seeds)


STUDY = common.Study(
    name="temperature",
    about="Teach networks of few bits and of many at several temperatures.",
    config=config_of,
    run=common.runner(
        Record,
        jobs,
        summary=summary,
        tables=common.headed(markdown, "test accuracy %; all of it simulated"),
        draw=draw,
        claims=claims,
    ),
    choose=choose,
    setting="weights",
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
