# SPDX-License-Identifier: Apache-2.0
"""From settings to a table, a picture and a JSON file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ._config import Config, config_of
from ._runs import Runs
from ._table import (
    AGAIN,
    DENSE,
    EARLY,
    ON,
    ONCE,
    ONCE_ERK,
    START,
    Record,
    draw,
    summary,
    table,
)

_ABOUT = (
    "Find lottery tickets by iterative pruning with rewinding, and compare them with "
    "re-initialized ones, pruning without rewinding, and pruning at once."
)

_ONCE = {ONCE: jc.prune.budgets.global_, ONCE_ERK: jc.prune.budgets.erk}


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    return common.main("lottery_tickets", _ABOUT, study, argv)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(options.data, seeds=options.seeds, quick=options.quick)
    session = common.Session(options, dataclasses.asdict(config))
    with session.progress(total(config)) as progress:
        records = run(config, session.data, progress)
    session.finish(
        summary(records),
        table(config, len(session.data.test), records),
        lambda file: draw(records, file),
    )


def total(config: Config) -> int:
    """How many trainings the study takes, all rounds of one counted once."""
    again = sum(r > 0 for r in config.shown)
    return config.seeds * (3 + again + len(_ONCE) * len(config.once))


def run(config: Config, data: Dataset, progress: common.Progress) -> list[Record]:
    """Train every row with every seed. Nothing depends on what the test set says."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    records: list[Record] = []

    def record(method: str, rounds: int, seed: int, params: Any) -> None:
        made = Record(
            method=method,
            rounds=rounds,
            asked=config.sparsity(rounds),
            seed=seed,
            sparsity=common.sparsity_of(params),
            accuracy=common.accuracy(runs.model, params, data.test),
        )
        records.append(made)

    for seed in range(config.seeds):
        trained = {}
        for name, to in ((START, 0), (EARLY, runs.early), (ON, None)):
            progress.start(f"seed {seed}: {name}")
            rounds = runs.iterative(seed, to)
            trained[name] = [_part(rounds, i) for i in range(config.rounds + 1)]
            progress.done()
        tickets = trained[START]
        record(DENSE, 0, seed, tickets[0])
        for name, networks in trained.items():
            for rounds, network in enumerate(networks[1:], 1):
                record(name, rounds, seed, network)
        for rounds in (r for r in config.shown if r > 0):
            progress.start(f"seed {seed}: {AGAIN}, round {rounds}")
            other = runs.initial(1000 + seed)
            record(AGAIN, rounds, seed, runs.fixed(tickets[rounds], other, seed))
            progress.done()
        for rounds in config.once:
            for name, budget in _ONCE.items():
                progress.start(f"seed {seed}: {name}, as round {rounds}")
                sparsity = config.sparsity(rounds)
                ticket = runs.pruned_once(tickets[0], sparsity, budget)
                network = runs.fixed(ticket, runs.initial(seed), seed)
                record(name, rounds, seed, network)
                progress.done()
    return records


def _part(stacked: Any, index: int) -> Any:
    return jax.tree.map(lambda x: x[index], stacked)
