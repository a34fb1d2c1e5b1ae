# SPDX-License-Identifier: Apache-2.0
"""``python -m research.on_policy``: from settings to a table, a picture and JSON files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset, Split
from ._config import Config, config_of
from ._judge import Judge
from ._rows import LOSSES, Row, rows
from ._tables import TEACHER, WARM, Record, draw, markdown, summary
from ._train import Params, Runs

ABOUT = (
    "Distill a small language model of characters on the text, on what its teacher "
    "writes, and on what it writes itself."
)
RATES = (2e-3, 4e-3, 8e-3)  # candidates
CHOSEN_WITH = 100  # another seed than those that are reported


def main(argv: Sequence[str] | None = None) -> int:
    """Parse arguments, run, and print the table; returns the exit status."""
    return common.main(
        "on_policy", ABOUT, study, argv, data=("shakespeare",), chooses=True
    )


def study(options: common.Options) -> None:
    """Run what was asked for and write it to the folder."""
    config = config_of(seeds=options.seeds, quick=options.quick)
    session = common.Session(options, config)
    data = session.data
    runs = Runs(config, data.num_classes, data.train)
    if options.choose:
        chosen = partial(choose, config, runs, data.validation)
        return session.choose(chosen, setting="rates")
    records = session.run(Record, partial(jobs, config, runs, data))
    cost = Judge(config, runs).cost(runs.warm(range(config.seeds))[0])
    text = (
        f"A batch of rollouts: {cost['steps']:.0f} ms by steps, "
        f"{cost['passes']:.0f} ms by whole passes."
    )
    session.finish(
        {"rollout_milliseconds": cost, **summary(records)},
        f"{markdown(records)}\n\n{text}",
        partial(draw, records),
    )


def jobs(
    config: Config, runs: Runs, data: Dataset, records: Sequence[Record]
) -> Iterator[common.Job[Record]]:
    """Train every network and judge it on the test set once."""
    del records
    seeds, judge, text = range(config.seeds), Judge(config, runs), data.test.x

    def record(
        row: str, params: Params, seed: int, milliseconds: float | None = None
    ) -> Record:
        of_text, of_own = judge.compare(params, text), judge.own(params, text, seed)
        return Record(
            row=row,
            seed=seed,
            bits=of_text.student,
            kl=of_text.kl,
            own_kl=of_own.kl,
            own_reverse_kl=of_own.reverse_kl,
            likely=of_own.teacher,
            entropy=of_own.student,
            milliseconds=milliseconds,
        )

    def trained(row: Row) -> list[Record]:
        networks, seconds = runs.trained(row, seeds)
        milliseconds = 1000 * seconds / config.steps / len(seeds)
        return [
            record(row.name, params, seed, milliseconds)
            for params, seed in zip(networks, seeds, strict=True)
        ]

    def warm() -> list[Record]:
        return [
            record(WARM, *each) for each in zip(runs.warm(seeds), seeds, strict=True)
        ]

    yield common.Job(TEACHER, lambda: [record(TEACHER, runs.teacher(), 0)])
    yield common.Job(WARM, warm)
    for row in rows(quick=config.quick):
        yield common.Job(row.name, partial(trained, row))


def choose(
    config: Config, runs: Runs, validation: Split, search: common.Search
) -> dict[str, Any]:
    """The learning rate of each loss, on the text, by bits a character of the text.

    By one measure for all, so that no loss is chosen for by what it reports of itself.
    Nothing here is given the test set.

    Returns:
      What was chosen, and the validation results of every candidate.
    """
    judge = Judge(config, runs)

    def measure(loss: str, rate: float) -> dict[str, float]:
        (params,), _ = runs.trained(Row("text", loss), [CHOSEN_WITH], rate)
        return judge.compare(params, validation.x)._asdict()

    rates: dict[str, Any] = {}
    for loss in LOSSES:
        best = search.best(
            loss, RATES, partial(measure, loss), lambda bits: -bits["student"]
        )
        each = {f"{rate:g}": bits for rate, bits in best.values.items()}
        rates[loss] = {"chosen": best.chosen, "all": each}
    bits = search.measured("teacher", lambda: judge.of_teacher(validation.x))
    return {
        "split": "validation",
        "examples": len(validation),
        "seed": CHOSEN_WITH,
        "teacher": bits,
        "rates": rates,
    }


if __name__ == "__main__":
    sys.exit(main())
