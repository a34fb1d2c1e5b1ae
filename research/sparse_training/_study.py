# SPDX-License-Identifier: Apache-2.0
"""From settings to a table, a picture and a JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from .. import common
from ..data import Dataset
from ._choose import choose, trials
from ._config import Config, config_of
from ._methods import METHODS
from ._runs import Runs
from ._table import CONTROL, DENSE, Record, draw, summary, table

_ABOUT = (
    "Train sparse networks from scratch (RigL, SET, static masks) and compare them with "
    "gradual pruning, the dense network and a small dense one of as many bytes."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    return common.main("sparse_training", _ABOUT, study, argv, chooses=True)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(options.data, seeds=options.seeds, quick=options.quick)
    session = common.Session(options, dataclasses.asdict(config))
    data = session.data
    if options.choose:
        with session.progress(trials(config)) as progress:
            made = choose(
                config, data.train, data.validation, data.num_classes, progress
            )
        return session.chose(made)
    with session.progress(total(config)) as progress:
        records = run(config, data, progress)
    session.finish(
        summary(records),
        table(config, len(data.test), records),
        lambda file: draw(records, file),
    )


def total(config: Config) -> int:
    """How many trainings the study takes."""
    each = 1 + len(config.sparsities) * (2 * len(METHODS) + 1)
    return config.seeds * each


def run(config: Config, data: Dataset, progress: common.Progress) -> list[Record]:
    """Train every row with every seed; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    records: list[Record] = []

    def record(
        name: str, budget: str, asked: float, seed: int, trained: Any, model: Any
    ) -> Record:
        params, masks = trained
        made = Record(
            method=name,
            budget=budget,
            asked=asked,
            seed=seed,
            sparsity=0.0 if masks is None else _sparsity(masks),
            zeros=common.sparsity_of(params),
            accuracy=common.accuracy(model, params, data.test),
            file_bytes=common.file_bytes(params),
        )
        records.append(made)
        progress.done()
        return made

    for seed in range(config.seeds):
        progress.start(f"seed {seed}: dense")
        record(DENSE, "", 0.0, seed, runs.dense(seed), runs.model)
    sizes: dict[float, int] = {}
    for name in METHODS:
        for sparsity in config.sparsities:
            for budget in ("ERK", "uniform"):
                for seed in range(config.seeds):
                    progress.start(f"{name} {100 * sparsity:g} %, {budget}, {seed}")
                    erk = budget == "ERK"
                    trained = runs.sparse(name, seed, sparsity=sparsity, erk=erk)
                    made = record(name, budget, sparsity, seed, trained, runs.model)
                    largest = max(sizes.get(sparsity, 0), made.file_bytes)
                    sizes[sparsity] = largest
    for sparsity, nbytes in sizes.items():
        small = common.no_larger(nbytes, data, config.widths)
        narrow = Runs(config, small, data.train)
        for seed in range(config.seeds):
            progress.start(f"small dense {small.widths}, {seed}")
            record(CONTROL, "", sparsity, seed, narrow.dense(seed), small)
    return records


def _sparsity(masks: Any) -> float:
    leaves = jax.tree.leaves(masks)
    kept = sum(int(m.sum()) for m in leaves)
    return 1 - kept / sum(m.size for m in leaves)
