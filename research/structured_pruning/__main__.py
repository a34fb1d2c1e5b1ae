# SPDX-License-Identifier: Apache-2.0
"""``python -m research.structured_pruning``: from settings to tables and a picture."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from .. import common
from ..data import Dataset
from ._config import Config, config_of
from ._network import resnet
from ._rows import CURVE, DENSE, FILTERS, MASKED, ON, ROWS
from ._tables import Record, claims, draw, summary, table
from ._train import Network, Runs

# Rates are chosen with this seed and row; the reported seeds are others.
CHOSEN_WITH, CHOSEN_BY = 100, FILTERS
RATES = (1e-3, 3e-3, 1e-2)
Cell = tuple[str, float]


def cells(config: Config) -> list[Cell]:
    """Rows and how many times fewer MACs they have."""
    curve = [
        (name, factor)
        for factor in config.curve
        for name in CURVE
        if factor != config.factor
    ]
    return [(ON, 1.0), *((name, config.factor) for name in ROWS), *curve]


def runs_of(config: Config, data: Dataset) -> Runs:
    """What trains the networks of a data set."""
    model = resnet(data.num_classes, config.widths, config.blocks, config.stem_stride)
    return Runs(config, model, data.train)


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Train every network of a seed, then time them; the test set only gives numbers."""
    del records
    runs = runs_of(config, data)

    def measured(name: str, factor: float, seed: int) -> list[Record]:
        network = runs.network(name, factor, seed)
        variables, seconds = runs.fitted(name, factor, seed)
        left = np.count_nonzero if name == MASKED else np.size
        record = Record(
            method=name,
            factor=factor,
            seed=seed,
            accuracy=runs.accuracy(network, variables, data.test),
            parameters=int(sum(map(left, jax.tree.leaves(variables["params"])))),
            macs=network.macs(runs.x),
            file_bytes=common.file_bytes(variables),
            seconds=seconds,
        )
        return [record]

    def timed(seed: int) -> list[Record]:
        shapes: dict[Cell, Network] = {(DENSE, 1.0): runs.network(ON, 1.0, seed)}
        shapes |= {cell: runs.network(*cell, seed) for cell in cells(config)}
        one, many = (
            common.interleaved(
                {
                    cell: partial(jax.jit(net.evaluate), net.masked(), runs.x[:size])
                    for cell, net in shapes.items()
                },
                config.rounds,
            )
            for size in config.batches
        )
        return [
            Record(
                method=cell[0],
                factor=cell[1],
                seed=seed,
                one=one[cell].ratio,
                many=many[cell].ratio,
                one_ms=1e3 * one[cell].seconds,
                many_ms=1e3 * many[cell].seconds,
            )
            for cell in shapes
        ]

    networks = [(DENSE, 1.0), *cells(config)]
    for (name, factor), seed in itertools.product(networks, range(config.seeds)):
        title = f"seed {seed}: {name}, {factor:g}x"
        yield common.Job(title, partial(measured, name, factor, seed))
    for seed in range(config.seeds):
        yield common.Job(f"seed {seed}: times", partial(timed, seed))


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The learning rates: of networks from scratch, then of those that are pruned.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    factor, once = config.factor, common.Once()

    def runs_at(rate: float) -> Runs:
        """All that start from the dense network trained at a rate."""
        at = dataclasses.replace(config, rate=rate)
        return once(rate, lambda: runs_of(at, data))

    def accuracy(runs: Runs, name: str, factor: float, rate: float) -> float:
        network = runs.network(name, factor, CHOSEN_WITH)
        variables, _ = runs.fitted(name, factor, CHOSEN_WITH, rate)
        return runs.accuracy(network, variables, data.validation)

    first = search.best("first", RATES, lambda r: accuracy(runs_at(r), DENSE, 1.0, r))
    measure = partial(accuracy, runs_at(first.chosen), CHOSEN_BY, factor)
    after = search.best("after pruning", RATES, measure)
    rate, later = (
        {"chosen": best.chosen, "all": list(best.values.items())}
        for best in (first, after)
    )
    later = {"rows": [CHOSEN_BY], **later}
    seeds = [CHOSEN_WITH]
    return {"seeds": seeds, "factor": factor, "rate": rate, "later_rate": later}


STUDY = common.Study(
    name="structured_pruning",
    about="Remove channels and blocks of a residual network with batch norm, train on, "
    "and compare accuracy and measured time with masked weights and small networks.",
    config=config_of,
    run=common.runner(
        Record, jobs, summary=summary, tables=table, draw=draw, claims=claims
    ),
    choose=choose,
    setting="rate",
    free=("seeds", "curve"),
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
