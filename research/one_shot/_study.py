# SPDX-License-Identifier: Apache-2.0
"""From settings to a table, a picture and a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import common
from ..data import Dataset
from ._choose import choose, trials
from ._config import Config, config_of
from ._methods import GREEDY, METHODS
from ._runs import Runs
from ._table import CONTROL, DENSE, Record, draw, largest, summary, table

_ABOUT = (
    "Prune trained networks in one shot, without training them afterwards: magnitudes, "
    "Fisher information, SparseGPT and Optimal Brain Surgeon, and a small dense network."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    return common.main("one_shot", _ABOUT, study, argv, chooses=True)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(options.data, seeds=options.seeds, quick=options.quick)
    session = common.Session(options, config.as_json())
    data = session.data
    if options.choose:
        with session.progress(trials()) as progress:
            made = choose(
                config, data.train, data.validation, data.num_classes, progress
            )
        return session.chose(made, setting="chosen")
    with session.progress(total(config)) as progress:
        records = run(config, data, progress)
    session.finish(
        summary(records),
        table(config, len(data.test), records),
        lambda file: draw(records, file),
    )


def methods(config: Config) -> list[str]:
    """The rows of a run."""
    return [name for name in METHODS if config.greedy or name != GREEDY]


def total(config: Config) -> int:
    """How many networks the study evaluates."""
    return config.seeds * (1 + len(config.sparsities) * (len(methods(config)) + 1))


def run(config: Config, data: Dataset, progress: common.Progress) -> list[Record]:
    """Prune every dense network in every way; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    records: list[Record] = []

    def record(name: str, asked: float, seed: int, params: Any, model: Any) -> None:
        records.append(
            Record(
                method=name,
                asked=asked,
                seed=seed,
                sparsity=common.sparsity_of(params),
                accuracy=common.accuracy(model, params, data.test),
                file_bytes=common.file_bytes(params),
            )
        )
        progress.done()

    progress.start(DENSE)
    networks = [runs.trained(seed) for seed in range(config.seeds)]
    for seed, network in enumerate(networks):
        record(DENSE, 0.0, seed, network.params, runs.model)
    for name in methods(config):
        setting = config.chosen.get(name, METHODS[name].candidates[0])
        progress.start(name)
        for sparsity in config.sparsities:
            for seed, network in enumerate(networks):
                pruned = runs.pruned(network, name, sparsity, setting)
                record(name, sparsity, seed, pruned, runs.model)
    for sparsity in config.sparsities:
        small = common.no_larger(largest(records, sparsity), data, config.widths)
        progress.start(f"{CONTROL} {small.widths}")
        narrow = Runs(config, small, data.train)
        for seed in range(config.seeds):
            record(CONTROL, sparsity, seed, narrow.trained(seed).params, small)
    return records
