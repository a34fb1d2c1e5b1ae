# SPDX-License-Identifier: Apache-2.0
"""From settings to tables, a picture and a JSON file."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterable, Sequence

from .. import old_common as common
from ..data import Dataset
from ._choose import choose, trials
from ._config import Config, config_of
from ._network import ConvNet
from ._picture import draw
from ._rows import rows
from ._runs import Runs
from ._table import Record, markdown, summary

_ABOUT = (
    "Round the weights of a small convolutional network to 16 to 1 bits, after training "
    "and in training; compare scales, binary and ternary networks, and qwix."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the tables; returns the exit status."""
    return common.main("bit_widths", _ABOUT, study, argv, chooses=True)


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    if importlib.util.find_spec("qwix") is None:
        raise common.RunError('qwix is missing: pip install -e ".[research,qwix]"')
    config = config_of(options.data, seeds=options.seeds, quick=options.quick)
    session = common.Session(options, dataclasses.asdict(config))
    data = session.data
    if options.choose:
        with session.progress(trials(config)) as progress:
            made = choose(
                config, data.train, data.validation, data.num_classes, progress
            )
        return session.chose(made, setting="rates")
    with session.progress(config.seeds * len(rows(quick=config.quick))) as progress:
        records = run(config, data, progress, range(config.seeds))
    caption = f"{config.seeds} seeds, test accuracy %; all of it simulated"
    session.finish(
        summary(records),
        f"{config.data}, {caption}\n\n{markdown(records)}",
        lambda file: draw(records, file),
    )


def run(
    config: Config, data: Dataset, progress: common.Progress, seeds: Iterable[int]
) -> list[Record]:
    """Make every network with every seed; the test set is looked at once a network."""
    runs = Runs(config, ConvNet(data.num_classes, config.widths), data.train)
    progress.start("float")
    networks = {seed: runs.trained(seed) for seed in seeds}
    records: list[Record] = []
    for row in rows(quick=config.quick):
        for seed, network in networks.items():
            progress.start(f"{row.name}, {seed}")
            made = runs.made(row, network, seed)
            records.append(
                Record(
                    method=row.method,
                    bits=row.bits,
                    start=row.start,
                    seed=seed,
                    accuracy=runs.accuracy(row, made, data.test),
                    # qwix's are not written: they would have the bytes of floats.
                    file_bytes=None if row.qwix else common.file_bytes(made.params),
                )
            )
            progress.done()
    return records
