# SPDX-License-Identifier: Apache-2.0
"""From settings to tables, a picture and a JSON file."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax

from .. import old_common as common
from ..data import Dataset
from ._choose import choose, trials
from ._config import Choices, Config, choices, config_of, key_of
from ._counted import counted, narrow
from ._picture import draw
from ._rows import (
    FLOAT,
    JOINTLY,
    LABELS,
    METHODS,
    NARROW,
    NARROW_BITS,
    QUANTIZE,
    SAME_AS,
    SMALL,
    Row,
    of_methods,
    of_temperatures,
    of_weights,
    rows,
    taught,
)
from ._runs import Runs
from ._table import Record, markdown, summary
from ._train import Params

_ABOUT = (
    "Prune, quantize and distill a small network in one step, and compare it with each "
    "alone, with one after another, and with small networks; then compare temperatures."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the tables; returns the exit status."""
    return common.main("joint_compression", _ABOUT, study, argv, chooses=True)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(options.data, seeds=options.seeds, quick=options.quick)
    session = common.Session(options, dataclasses.asdict(config))
    data = session.data
    if options.choose:
        with session.progress(trials(config, data)) as progress:
            made = choose(config, data, progress)
        return session.chose(made)
    chosen = choices(quick=config.quick)
    with session.progress(total(config, chosen)) as progress:
        records = []
        for record in run(config, chosen, data, progress):
            records.append(record)
            progress.done()
    caption = f"{config.seeds} seeds, test accuracy %; all of it simulated"
    session.finish(
        summary(records),
        f"{config.data}, {caption}\n\n{markdown(records)}",
        lambda file: draw(records, file),
    )


def total(config: Config, chosen: Choices) -> int:
    """How many networks the study makes."""
    return config.seeds * (1 + len(rows(config, chosen)) + 4)


class Start(NamedTuple):
    """What the rows of a seed start from."""

    params: Params
    logits: jax.Array  # of the training split


def run(
    config: Config, chosen: Choices, data: Dataset, progress: common.Progress
) -> Iterator[Record]:
    """Make every network with every seed; the test set is looked at once a network."""
    runs = Runs(config, common.Perceptron(data.num_classes, config.widths), data.train)
    starts: list[Start] = []
    for seed in range(config.seeds):
        progress.start(f"{FLOAT}, {seed}")
        params = runs.trained(seed)
        starts.append(Start(params, runs.logits(params)))
        row = Row("methods", FLOAT, None, LABELS)
        yield _record(config, row, seed, runs, params, data)
    known: dict[Any, Record] = {}

    def of(rows: Iterable[Row]) -> Iterator[Record]:
        for row, (seed, start) in itertools.product(rows, enumerate(starts)):
            progress.start(f"{row.name}, {seed}")
            key = (row.method, row.bits, row.teaching, seed)
            if key not in known:  # a row of two tables is one network
                made = _made(runs, chosen, row, seed, start)
                known[key] = _record(config, row, seed, runs, made, data)
            yield dataclasses.replace(known[key], part=row.part)

    yield from of(of_methods(config, chosen))
    joint = [r for r in known.values() if r.method == JOINTLY]
    bits = min(config.bits)
    nbytes = max(r.file_bytes for r in joint if r.bits == bits)
    yield from _small(config, chosen, data, bits, nbytes, starts, progress)
    yield from of(of_temperatures(config))
    yield from of(of_weights(config, chosen))


def _made(runs: Runs, chosen: Choices, row: Row, seed: int, start: Start) -> Params:
    setting = chosen.settings[key_of(SAME_AS.get(row.method, row.method), row.bits)]
    return runs.made(
        METHODS[row.method], start.params, seed, bits=row.bits, setting=setting,
        teaching=row.teaching, teacher=start.logits,
    )  # fmt: skip


def _small(
    config: Config,
    chosen: Choices,
    data: Dataset,
    bits: int,
    nbytes: int,
    starts: Sequence[Start],
    progress: common.Progress,
) -> Iterator[Record]:
    """Networks that are small from the start, of as many bytes as those made jointly."""
    setting = chosen.settings[key_of(QUANTIZE, NARROW_BITS)]
    rate = chosen.settings[SMALL].rate
    dense = Runs(config, common.no_larger(nbytes, data, config.widths), data.train)
    coded = Runs(config, narrow(nbytes, data, config), data.train)
    teachers = taught(chosen, SMALL, None), taught(chosen, QUANTIZE, NARROW_BITS)
    for of_dense, of_coded in ((LABELS, LABELS), teachers):
        for seed, (_, logits) in enumerate(starts):
            row = Row("methods", SMALL, bits, of_dense)
            progress.start(f"{row.name}, {seed}")
            made = dense.trained(seed, logits, of_dense, longer=True, rate=rate)
            yield _record(config, row, seed, dense, made, data)
            row = Row("methods", NARROW, bits, of_coded)
            progress.start(f"{row.name}, {seed}")
            made = coded.trained(seed, logits, of_coded, rate=rate)
            made = coded.made(
                METHODS[QUANTIZE], made, seed, bits=NARROW_BITS, setting=setting,
                teaching=of_coded, teacher=logits,
            )  # fmt: skip
            yield _record(config, row, seed, coded, made, data)


def _record(
    config: Config, row: Row, seed: int, runs: Runs, shipped: Params, data: Dataset
) -> Record:
    found = counted(config, row, shipped)
    return Record(
        part=row.part,
        method=row.method,
        bits=row.bits,
        taught=row.taught,
        weight=row.teaching.weight,
        seed=seed,
        accuracy=common.accuracy(runs.model, found.params, data.test),
        sparsity=found.sparsity,
        levels=found.levels,
        weights=found.weights,
        file_bytes=common.file_bytes(shipped),
    )
