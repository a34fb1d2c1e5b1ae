# SPDX-License-Identifier: Apache-2.0
"""``python -m research.joint_compression``: from settings to tables and JSON files."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ._choose import choose
from ._config import Config, config_of
from ._counted import counted, narrow
from ._rows import (
    FLOAT,
    JOINTLY,
    LABELS,
    METHODS,
    NARROW,
    NARROW_BITS,
    QUANTIZE,
    SMALL,
    Row,
    of_afterwards,
    of_methods,
    of_temperatures,
    of_weights,
    setting_of,
    taught,
)
from ._tables import Record, claims, draw, summary, tables
from ._train import Params, Runs


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Make every network with every seed; the test set is looked at once a network."""
    chosen = config.chosen
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)

    def record(row: Row, seed: int, runs: Runs, shipped: Params) -> list[Record]:
        count = counted(config, row, shipped)
        return [
            Record(
                part=row.part,
                method=row.method,
                bits=row.bits,
                taught=row.taught,
                weight=row.teaching.weight,
                seed=seed,
                accuracy=common.accuracy(runs.model, count.params, data.test),
                sparsity=count.sparsity,
                levels=count.levels,
                weights=count.weights,
                file_bytes=common.file_bytes(shipped),
            )
        ]

    def float_network(row: Row, seed: int) -> list[Record]:
        return record(row, seed, runs, runs.float_network(seed))

    def of_row(row: Row, seed: int) -> list[Record]:
        for other in records:  # a row of two tables is one network
            if row.makes(other) and other.seed == seed:
                return [dataclasses.replace(other, part=row.part)]
        setting = setting_of(chosen.settings, row.method, row.bits)
        shipped = runs.shipped(
            row.method, seed, bits=row.bits, setting=setting, teaching=row.teaching
        )
        return record(row, seed, runs, shipped)

    def control(row: Row, seed: int) -> list[Record]:
        """A network that is small from the start, of as many bytes as a joint one."""
        dense = row.method != NARROW

        def smaller() -> Runs:
            if row.method == common.SMALL_MACS:
                asked, name = config.sparsity, row.method
                model = common.control(name, [], asked, data, config.widths)
            else:
                few, methods = min(config.bits), of_method(JOINTLY)
                nbytes = max(r.file_bytes for r in methods if r.bits == few)
                build = common.no_larger if dense else partial(narrow, config)
                model = build(nbytes, data, config.widths)
            return Runs(config, model, data.train)

        small, teacher = runs.once(("control", row.method), smaller), runs.teacher(seed)
        network = small.trained(
            seed, row.teaching, teacher, longer=dense, rate=chosen.settings[SMALL].rate
        )
        if dense:
            return record(row, seed, small, network)
        shipped = small.staged(
            METHODS[QUANTIZE], network, seed, bits=NARROW_BITS,
            setting=setting_of(chosen.settings, NARROW, NARROW_BITS), teaching=row.teaching,
            teacher=teacher,
        )  # fmt: skip
        return record(row, seed, small, shipped)

    def of_method(name: str) -> list[Record]:
        return [record for record in records if record.method == name]

    def each(make: Any, rows: Iterable[Row]) -> Iterator[common.Job[Record]]:
        for row, seed in itertools.product(rows, range(config.seeds)):
            title = f"{row.part}: {row.name}, {seed}"
            yield common.Job(title, partial(make, row, seed))

    yield from each(float_network, [Row("methods", FLOAT, None, LABELS)])
    yield from each(of_row, of_methods(config))
    teachers = taught(chosen, SMALL, None), taught(chosen, QUANTIZE, NARROW_BITS)
    for teachings in ((LABELS, LABELS), teachers):
        rows = [
            Row("methods", method, min(config.bits), teaching)
            for method, teaching in zip((SMALL, NARROW), teachings, strict=True)
        ]
        for seed in range(config.seeds):
            for row in rows:
                title = f"{row.name}, {seed}"
                yield common.Job(title, partial(control, row, seed))
    yield from each(of_row, of_temperatures(config))
    yield from each(of_row, of_weights(config))
    yield from each(of_row, of_afterwards(config))
    macs = (
        Row("methods", common.SMALL_MACS, None, teaching)
        for teaching in (LABELS, taught(chosen, SMALL, None))
    )
    yield from each(control, macs)


STUDY = common.Study(
    name="joint_compression",
    about="Prune, quantize and distill a small network in one step, and compare it with "
    "each alone, with one after another, and with small networks; then compare "
    "temperatures.",
    config=config_of,
    run=common.runner(
        Record, jobs, summary=summary, tables=tables, draw=draw, claims=claims
    ),
    choose=choose,
    setting="chosen",
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
