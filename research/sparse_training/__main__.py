# SPDX-License-Identifier: Apache-2.0
"""``python -m research.sparse_training``: from settings to a table and JSON files."""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax

from .. import common
from ..data import Dataset
from ._config import Config, Exchange, config_of
from ._rows import METHODS
from ._tables import DENSE, ONCE, Record, claims, draw, summary, table
from ._train import Runs

# What is tried in a choice; the seeds are others than those that are reported.
RATES = (1e-3, 3e-3, 1e-2)
DROPS = (0.1, 0.3, 0.5)
PERIODS = (25, 50, 100)
SPARSITIES = (0.9, 0.98)
SEEDS = (100, 101)
DYNAMIC = ("RigL", "SET")


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Train every row with every seed; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    seeds = range(config.seeds)

    def record(
        name: str, budget: str, asked: float, seed: int, trained: Any, model: Any
    ) -> Record:
        params, masks = trained
        return Record(
            method=name,
            budget=budget,
            asked=asked,
            seed=seed,
            sparsity=0.0 if masks is None else _sparsity(masks),
            zeros=common.sparsity_of(params),
            accuracy=common.accuracy(model, params, data.test),
            file_bytes=common.file_bytes(params),
        )

    def dense(seed: int) -> list[Record]:
        return [record(DENSE, "", 0.0, seed, runs.dense(seed), runs.model)]

    def sparse(name: str, sparsity: float, budget: str, seed: int) -> list[Record]:
        make = runs.pruned if name == ONCE else partial(runs.sparse, name)
        trained = make(seed, sparsity=sparsity, erk=budget == "ERK")
        return [record(name, budget, sparsity, seed, trained, runs.model)]

    def control(name: str, sparsity: float, seed: int) -> list[Record]:
        small = common.control(name, records, sparsity, data, config.widths)
        narrow = runs.once(small, lambda: Runs(config, small, data.train))
        return [record(name, "", sparsity, seed, narrow.dense(seed), small)]

    def each(names: Iterable[str]) -> Iterator[common.Job[Record]]:
        rows = itertools.product(names, config.sparsities, ("ERK", "uniform"), seeds)
        for name, sparsity, budget, seed in rows:
            title = f"{name} {100 * sparsity:g} %, {budget}, {seed}"
            yield common.Job(title, partial(sparse, name, sparsity, budget, seed))

    for seed in seeds:
        yield common.Job(f"{DENSE}, {seed}", partial(dense, seed))
    yield from each(METHODS)
    for row in itertools.product(common.CONTROLS, config.sparsities, seeds):
        name, sparsity, seed = row
        title = f"{name} {100 * sparsity:g} %, {seed}"
        yield common.Job(title, partial(control, name, sparsity, seed))
    yield from each([ONCE])


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """One learning rate for all rows, then exchanges for the two that have them.

    The rate is the one with the best mean over the dense network and all methods, so
    that it favors none; all with ERK budgets.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    seeds, sparsities, rates, drops, periods = _grids(config)
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)

    def score(trained: tuple[Any, Any]) -> float:
        return common.accuracy(runs.model, trained[0], data.validation)

    def sparse(name: str, rate: float, exchange: Exchange | None = None) -> float:
        return statistics.fmean(
            score(
                runs.sparse(
                    name, seed, sparsity=s, erk=True, rate=rate, exchange=exchange
                )
            )
            for s, seed in itertools.product(sparsities, seeds)
        )

    def of_rate(rate: float) -> dict[str, float]:
        dense = statistics.fmean(score(runs.dense(seed, rate=rate)) for seed in seeds)
        return {"dense": dense, **{name: sparse(name, rate) for name in METHODS}}

    rate = search.best(
        "rate", rates, of_rate, lambda rows: statistics.fmean(rows.values())
    )
    exchanges: dict[str, Any] = {}
    for name in DYNAMIC:
        best = search.best(
            name,
            itertools.starmap(Exchange, itertools.product(drops, periods)),
            partial(sparse, name, rate.chosen),
        )
        rows = {
            exchange: {
                "drop": exchange.drop,
                "every": exchange.every,
                "accuracy": accuracy,
            }
            for exchange, accuracy in best.values.items()
        }
        exchanges[name] = {"chosen": rows[best.chosen], "all": list(rows.values())}
    return {
        "sparsities": sparsities,
        "seeds": seeds,
        "rate": {
            "chosen": rate.chosen,
            "accuracy": {f"{key:g}": rows for key, rows in rate.values.items()},
        },
        "exchange": exchanges,
    }


def _grids(config: Config) -> tuple[tuple[Any, ...], ...]:
    """Seeds, sparsities, rates, drops and periods of a choice; few in a trial."""
    if config.quick:
        return SEEDS[:1], SPARSITIES[-1:], RATES[:2], DROPS[:2], PERIODS[:1]
    return SEEDS, SPARSITIES, RATES, DROPS, PERIODS


def _sparsity(masks: Any) -> float:
    leaves = jax.tree.leaves(masks)
    kept = sum(int(m.sum()) for m in leaves)
    return 1 - kept / sum(m.size for m in leaves)


STUDY = common.Study(
    name="sparse_training",
    about="Train sparse networks from scratch (RigL, SET, static masks) and compare "
    "them with gradual pruning, the dense network and a small dense one of as "
    "many bytes.",
    config=config_of,
    run=common.runner(
        Record, jobs, summary=summary, tables=table, draw=draw, claims=claims
    ),
    choose=choose,
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
