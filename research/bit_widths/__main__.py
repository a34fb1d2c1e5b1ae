# SPDX-License-Identifier: Apache-2.0
"""``python -m research.bit_widths``: from settings to tables, a picture and JSON files."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ._config import Config, config_of
from ._rows import FOUR, SMALL, Row, rows
from ._tables import Record, claims, draw, markdown, summary
from ._train import ConvNet, Runs, narrow

RATES = (1e-3, 2e-3, 4e-3)  # candidates
CHOSEN_WITH = 100  # another seed than those that are reported
TUNING = 1  # epochs in a choice; fewer than in the study, for time


def config_with_qwix(data: str, **options: Any) -> Config:
    """Settings of a run, which needs qwix."""
    if importlib.util.find_spec("qwix") is None:
        raise common.RunError('qwix is missing: pip install -e ".[research,qwix]"')
    return config_of(data, **options)


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Make every network with every seed; the test set is looked at once a network."""
    model = ConvNet(data.num_classes, config.widths)
    runs = Runs(config, model, data.train)

    def small(bits: str) -> Runs:
        same = (r for r in records if (r.method, r.bits) == ("LSQ", bits))
        nbytes = max(r.file_bytes for r in same if r.file_bytes is not None)
        return Runs(config, narrow(nbytes, model, data.train.x), data.train)

    def record(row: Row, seed: int) -> list[Record]:
        of = runs
        if row.method == SMALL:
            of = runs.once((SMALL, row.bits), lambda: small(row.bits))
        if row.qwix:  # it patches JAX for the whole process: floats are trained before
            for each in range(config.seeds):
                runs.float_network(each)
        network = of.of_row(row, seed)
        return [
            Record(
                method=row.method,
                bits=row.bits,
                start=row.start,
                seed=seed,
                accuracy=of.accuracy(row, network, data.test),
                # qwix's are not written: they would have the bytes of floats.
                file_bytes=None if row.qwix else common.file_bytes(network.params),
            )
        ]

    for row, seed in itertools.product(rows(quick=config.quick), range(config.seeds)):
        yield common.Job(f"{row.name}, {seed}", partial(record, row, seed))


def families(config: Config) -> dict[str, Row]:
    """The row that stands for each setting: the narrowest of weights only."""
    return {
        row.setting: row
        for row in rows(quick=config.quick)
        if row.start == "float"
        and row.times == 1
        and row.method != FOUR
        and "A" not in row.bits
    }


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The learning rate of each setting with the best accuracy.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    config = dataclasses.replace(config, tuning=TUNING)
    runs = Runs(config, ConvNet(data.num_classes, config.widths), data.train)

    def measure(row: Row, rate: float) -> float:
        return runs.accuracy(row, runs.of_row(row, CHOSEN_WITH, rate), data.validation)

    rates: dict[str, Any] = {}
    for name, row in families(config).items():
        best = search.best(name, RATES, partial(measure, row))
        rates[name] = {
            "row": row.name,
            "chosen": best.chosen,
            "accuracy": {f"{rate:g}": value for rate, value in best.values.items()},
        }
    return {
        "seed": CHOSEN_WITH,
        "tuning": TUNING,
        "rates": rates,
    }


STUDY = common.Study(
    name="bit_widths",
    about="Round the weights of a small convolutional network to 16 to 1 bits, after "
    "training and in training; compare scales, binary and ternary networks, and "
    "qwix.",
    config=config_with_qwix,
    run=common.runner(
        Record,
        jobs,
        summary=summary,
        tables=common.headed(markdown, "test accuracy %; all of it simulated"),
        draw=draw,
        claims=claims,
    ),
    choose=choose,
    setting="rates",
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
