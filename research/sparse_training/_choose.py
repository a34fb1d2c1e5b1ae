# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split. No function here is given the test split."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from .. import common
from ..data import Split
from ._config import Config, Exchange
from ._methods import METHODS
from ._runs import Runs

RATES = (1e-3, 3e-3, 1e-2)
DROPS = (0.1, 0.3, 0.5)
PERIODS = (25, 50, 100)
SPARSITIES = (0.9, 0.98)
SEEDS = (100, 101)  # others than those that are reported
DYNAMIC = ("RigL", "SET")


def trials(config: Config) -> int:
    """How many trainings a choice takes."""
    _, rates, drops, periods, sparsities, seeds = _grid(config)
    runs = len(sparsities) * len(seeds)
    rate = len(rates) * (len(seeds) + len(METHODS) * runs)
    return rate + len(DYNAMIC) * len(drops) * len(periods) * runs


def choose(
    config: Config,
    train: Split,
    validation: Split,
    classes: int,
    progress: common.Progress,
) -> dict[str, Any]:
    """One learning rate for all rows, then exchanges for the two that have them.

    The rate is the one with the best mean over the dense network and all methods, so
    that it favors none; all with ERK budgets.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    where, rates, drops, periods, sparsities, seeds = _grid(config)
    runs = Runs(config, common.Perceptron(classes, config.widths), train)

    def score(trained: tuple[Any, Any]) -> float:
        progress.done()
        return common.accuracy(runs.model, trained[0], validation)

    by_rate: dict[str, dict[str, float]] = {}
    for rate in rates:
        progress.start(f"rate {rate:g}")
        rows = {"dense": [score(runs.dense(seed, rate=rate)) for seed in seeds]}
        for name in METHODS:
            rows[name] = [
                score(runs.sparse(name, seed, sparsity=s, erk=True, rate=rate))
                for s, seed in itertools.product(sparsities, seeds)
            ]
        by_rate[f"{rate:g}"] = {n: statistics.fmean(v) for n, v in rows.items()}
    best = max(rates, key=lambda r: statistics.fmean(by_rate[f"{r:g}"].values()))

    exchanges: dict[str, list[dict[str, Any]]] = {}
    for name in DYNAMIC:
        exchanges[name] = []
        for drop, every in itertools.product(drops, periods):
            progress.start(f"{name}, {drop:g} every {every}")
            accuracies = [
                score(
                    runs.sparse(
                        name, seed, sparsity=s, erk=True, rate=best,
                        exchange=Exchange(drop, every),
                    )
                )
                for s, seed in itertools.product(sparsities, seeds)
            ]  # fmt: skip
            entry = {"drop": drop, "every": every}
            exchanges[name].append({**entry, "accuracy": statistics.fmean(accuracies)})
    return {
        "data": config.data,
        "split": "validation",
        "examples": len(validation),
        **where,
        "rate": {"chosen": best, "accuracy": by_rate},
        "exchange": {
            name: {"chosen": max(rows, key=lambda row: row["accuracy"]), "all": rows}
            for name, rows in exchanges.items()
        },
    }


def _grid(config: Config) -> tuple[Any, ...]:
    sparsities, seeds = (
        (SPARSITIES[-1:], SEEDS[:1]) if config.quick else (SPARSITIES, SEEDS)
    )
    periods = PERIODS[:1] if config.quick else PERIODS
    drops = DROPS[:2] if config.quick else DROPS
    rates = RATES[:2] if config.quick else RATES
    where = {"sparsities": sparsities, "seeds": seeds}
    return where, rates, drops, periods, sparsities, seeds
