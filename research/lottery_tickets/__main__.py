# SPDX-License-Identifier: Apache-2.0
"""``python -m research.lottery_tickets``: from settings to a table and JSON files."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ._config import Config, config_of
from ._tables import (
    AGAIN,
    DENSE,
    EARLY,
    ON,
    ONCE,
    ONCE_ERK,
    START,
    Record,
    claims,
    draw,
    summary,
    table,
)
from ._train import Runs

BUDGETS = {ONCE: jc.prune.budgets.global_, ONCE_ERK: jc.prune.budgets.erk}


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Train every row with every seed. Nothing depends on what the test set says."""
    del records
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)

    def record(
        method: str, rounds: int, seed: int, params: Any, model: Any = runs.model
    ) -> Record:
        return Record(
            method=method,
            rounds=rounds,
            asked=config.sparsity(rounds),
            seed=seed,
            sparsity=common.sparsity_of(params),
            accuracy=common.accuracy(model, params, data.test),
        )

    def trained(seed: int, rewind_to: int | None) -> list[Any]:
        """The dense network, and those of the rounds."""
        stacked = runs.iterative(seed, rewind_to)
        return [
            jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(config.rounds + 1)
        ]

    def tickets(seed: int) -> list[Any]:
        return runs.once(("tickets", seed), lambda: trained(seed, 0))

    def iterative(seed: int, name: str, rewind_to: int | None) -> list[Record]:
        if name != START:
            networks = trained(seed, rewind_to)[1:]
            return [record(name, i, seed, net) for i, net in enumerate(networks, 1)]
        dense, *networks = tickets(seed)
        rows = [record(name, i, seed, net) for i, net in enumerate(networks, 1)]
        return [record(DENSE, 0, seed, dense), *rows]

    def again(seed: int, rounds: int) -> list[Record]:
        other = runs.initial(runs.model, 1000 + seed)
        network = runs.fixed(tickets(seed)[rounds], other, seed)
        return [record(AGAIN, rounds, seed, network)]

    def once(seed: int, rounds: int, name: str) -> list[Record]:
        dense, sparsity = tickets(seed)[0], config.sparsity(rounds)
        ticket = runs.pruned_once(dense, sparsity, BUDGETS[name])
        network = runs.fixed(ticket, runs.initial(runs.model, seed), seed)
        return [record(name, rounds, seed, network)]

    def control(seed: int, rounds: int) -> list[Record]:
        asked = config.sparsity(rounds)
        small = common.control(common.SMALL_MACS, [], asked, data, config.widths)
        narrow = runs.once(small, lambda: Runs(config, small, data.train))
        start = narrow.initial(small, seed)
        network = narrow.fixed(start, start, seed)
        return [record(common.SMALL_MACS, rounds, seed, network, small)]

    for seed in range(config.seeds):
        for name, rewind_to in ((START, 0), (EARLY, runs.early), (ON, None)):
            make = partial(iterative, seed, name, rewind_to)
            yield common.Job(f"seed {seed}: {name}", make)
        for rounds in (r for r in config.shown if r > 0):
            title = f"seed {seed}: {AGAIN}, round {rounds}"
            yield common.Job(title, partial(again, seed, rounds))
        for rounds, name in itertools.product(config.once, BUDGETS):
            title = f"seed {seed}: {name}, as round {rounds}"
            yield common.Job(title, partial(once, seed, rounds, name))
    for seed, rounds in itertools.product(range(config.seeds), config.shown):
        if rounds > 0:
            title = f"seed {seed}: {common.SMALL_MACS}, as round {rounds}"
            yield common.Job(title, partial(control, seed, rounds))


STUDY = common.Study(
    name="lottery_tickets",
    about="Find lottery tickets by iterative pruning with rewinding, and compare them "
    "with re-initialized ones, pruning without rewinding, and pruning at once.",
    config=config_of,
    run=common.runner(
        Record, jobs, summary=summary, tables=table, draw=draw, claims=claims
    ),
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
