# SPDX-License-Identifier: Apache-2.0
"""``python -m research.on_policy``: from settings to a table, a picture and JSON files."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ._config import Config, config_of
from ._judge import Judge
from ._rows import LOSSES, Row, rows
from ._tables import TEACHER, WARM, Record, claims, draw, markdown, summary
from ._train import Params, Runs

RATES = (2e-3, 4e-3, 8e-3)  # candidates
CHOSEN_WITH = 100  # another seed than those that are reported


def run(config: Config, session: common.Session) -> None:
    """Run the jobs and write the results."""
    runs = Runs(config, session.data.num_classes, session.data.train)
    records = session.run(Record, partial(jobs, config, runs, session.data))
    cost = Judge(config, runs).cost(runs.warm(range(config.seeds))[0])
    text = (
        f"A batch of rollouts: {cost['steps']:.0f} ms by steps, "
        f"{cost['passes']:.0f} ms by whole passes."
    )
    session.finish(
        {"rollout_milliseconds": cost, **summary(records)},
        f"{markdown(records)}\n\n{text}",
        partial(draw, records),
        claims(records),
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


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The learning rate of each loss, on the text, by bits a character of the text.

    By one measure for all, so that no loss is chosen for by what it reports of itself.

    Returns:
      What was chosen, and the validation results of every candidate.
    """
    runs = Runs(config, data.num_classes, data.train)
    judge, text = Judge(config, runs), data.validation.x

    def measure(loss: str, rate: float) -> dict[str, float]:
        (params,), _ = runs.trained(Row("text", loss), [CHOSEN_WITH], rate)
        return judge.compare(params, text)._asdict()

    rates: dict[str, Any] = {}
    for loss in LOSSES:
        best = search.best(
            loss, RATES, partial(measure, loss), lambda bits: -bits["student"]
        )
        each = {f"{rate:g}": bits for rate, bits in best.values.items()}
        rates[loss] = {"chosen": best.chosen, "all": each}
    bits = search.measured("teacher", lambda: judge.of_teacher(text))
    return {
        "seed": CHOSEN_WITH,
        "teacher": bits,
        "rates": rates,
    }


STUDY = common.Study(
    name="on_policy",
    about="Distill a small language model of characters on the text, on what its "
    "teacher writes, and on what it writes itself.",
    config=config_of,
    run=run,
    choose=choose,
    setting="rates",
    data=("shakespeare",),
)
main = STUDY.main

if __name__ == "__main__":
    sys.exit(main())
