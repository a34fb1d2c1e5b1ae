# SPDX-License-Identifier: Apache-2.0
"""``python -m research.joint_compression``: from settings to tables and JSON files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial

from .. import common
from ..data import Dataset
from ..stages import (
    FLOAT,
    JOINTLY,
    LABELS,
    METHODS,
    NARROW,
    NARROW_BITS,
    QUANTIZE,
    SMALL,
    Record,
    Row,
    Runs,
    each,
    of_row,
    recorded,
    setting_of,
    summary,
    taught,
)
from ._choose import choose
from ._config import Config, config_of
from ._rows import narrow, of_afterwards, of_methods
from ._tables import claims, draw, markdown


def jobs(
    config: Config, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Make every network with every seed; the test set is looked at once a network."""
    chosen = config.chosen
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)

    def float_network(row: Row, seed: int) -> list[Record]:
        return recorded(row, seed, runs, runs.float_network(seed), data.test)

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
            return recorded(row, seed, small, network, data.test)
        shipped = small.staged(
            METHODS[QUANTIZE], network, seed, bits=NARROW_BITS,
            setting=setting_of(chosen.settings, NARROW, NARROW_BITS), teaching=row.teaching,
            teacher=teacher,
        )  # fmt: skip
        return recorded(row, seed, small, shipped, data.test)

    def of_method(name: str) -> list[Record]:
        return [record for record in records if record.method == name]

    seeds, make = config.seeds, partial(of_row, runs, data.test, records)
    yield from each(float_network, [Row("methods", FLOAT, None, LABELS)], seeds)
    yield from each(make, of_methods(config), seeds)
    teachers = taught(chosen, SMALL, None), taught(chosen, QUANTIZE, NARROW_BITS)
    for teachings in ((LABELS, LABELS), teachers):
        rows = [
            Row("methods", method, min(config.bits), teaching)
            for method, teaching in zip((SMALL, NARROW), teachings, strict=True)
        ]
        for seed in range(seeds):
            for row in rows:
                title = f"{row.name}, {seed}"
                yield common.Job(title, partial(control, row, seed))
    yield from each(make, of_afterwards(config), seeds)
    macs = (
        Row("methods", common.SMALL_MACS, None, teaching)
        for teaching in (LABELS, taught(chosen, SMALL, None))
    )
    yield from each(control, macs, seeds)


STUDY = common.Study(
    name="joint_compression",
    about="Prune, quantize and distill a small network in one step, and compare it with "
    "each alone, with one after another, and with small networks.",
    config=config_of,
    run=common.runner(
        Record,
        jobs,
        summary=summary,
        tables=common.headed(markdown, "test accuracy %; all of it simulated"),
        draw=draw,
        claims=claims,
    ),
    choose=choose,
    setting="chosen",
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
