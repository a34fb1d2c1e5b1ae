# SPDX-License-Identifier: Apache-2.0
"""``python -m research.one_shot``: from settings to a table, a picture and JSON files."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ._config import Config, Setting, config_of
from ._rows import GREEDY, METHODS, Method
from ._tables import DENSE, Record, claims, draw, summary, table
from ._train import Runs

# Settings are chosen by the mean over these; the seeds are others than the reported.
CHOSEN_AT = (0.8, 0.9)
CHOSEN_WITH = (100, 101, 102)


def methods(config: Config) -> list[str]:
    """The rows of a run."""
    return [name for name in METHODS if config.greedy or name != GREEDY]


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Prune every dense network in every way; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    seeds = range(config.seeds)

    def record(name: str, asked: float, seed: int, params: Any, model: Any) -> Record:
        return Record(
            method=name,
            asked=asked,
            seed=seed,
            sparsity=common.sparsity_of(params),
            accuracy=common.accuracy(model, params, data.test),
            file_bytes=common.file_bytes(params),
        )

    def dense(seed: int) -> list[Record]:
        return [record(DENSE, 0.0, seed, runs.trained(seed).params, runs.model)]

    def pruned(name: str, sparsity: float, seed: int) -> list[Record]:
        setting = config.chosen.get(name, METHODS[name].candidates[0])
        params = runs.pruned(runs.trained(seed), name, sparsity, setting)
        return [record(name, sparsity, seed, params, runs.model)]

    def control(name: str, sparsity: float, seed: int) -> list[Record]:
        small = common.control(name, records, sparsity, data, config.widths)
        narrow = runs.once(small, lambda: Runs(config, small, data.train))
        return [record(name, sparsity, seed, narrow.trained(seed).params, small)]

    for seed in seeds:
        yield common.Job(f"{DENSE}, {seed}", partial(dense, seed))
    for name in methods(config):
        for sparsity in config.sparsities:
            for seed in seeds:
                title = f"{name}, {sparsity:g}, {seed}"
                yield common.Job(title, partial(pruned, name, sparsity, seed))
    for row in itertools.product(common.CONTROLS, config.sparsities, seeds):
        name, sparsity, seed = row
        title = f"{name}, {sparsity:g}, {seed}"
        yield common.Job(title, partial(control, name, sparsity, seed))


def open_methods() -> dict[str, Method]:
    """The methods for which there is something to choose."""
    return {name: m for name, m in METHODS.items() if len(m.candidates) > 1}


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The setting of each method with the best mean over sparsities and seeds.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)

    def measure(name: str, setting: Setting) -> dict[str, float]:
        accuracies: dict[str, float] = {}
        for sparsity in CHOSEN_AT:
            right = []
            for seed in CHOSEN_WITH:
                pruned = runs.pruned(runs.trained(seed), name, sparsity, setting)
                right.append(common.accuracy(runs.model, pruned, data.validation))
            accuracies[f"{sparsity:g}"] = statistics.fmean(right)
        return accuracies

    choices: dict[str, Any] = {}
    for name, method in open_methods().items():
        best = search.best(
            name,
            method.candidates,
            partial(measure, name),
            lambda accuracies: statistics.fmean(accuracies.values()),
        )
        rows = {
            setting: {**dataclasses.asdict(setting), "accuracy": accuracies}
            for setting, accuracies in best.values.items()
        }
        choices[name] = {"chosen": rows[best.chosen], "all": list(rows.values())}
    return {
        "seeds": CHOSEN_WITH,
        "sparsities": CHOSEN_AT,
        "methods": choices,
    }


STUDY = common.Study(
    name="one_shot",
    about="Prune trained networks in one shot, without training them afterwards: "
    "magnitudes, Fisher information, SparseGPT and Optimal Brain Surgeon, and a "
    "small dense network.",
    config=config_of,
    run=common.runner(
        Record, jobs, summary=summary, tables=table, draw=draw, claims=claims
    ),
    choose=choose,
    setting="chosen",
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
