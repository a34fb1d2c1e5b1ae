# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split; nothing here is given the test set."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from .. import old_common as common
from ..data import Split
from ._config import Config, Setting
from ._rows import ALONE, KL, SMOOTH, TEMPERATURES, Row, rows, temperature_row
from ._runs import Runs

SEED = 100  # another than those that are reported
RATES = (1e-3, 3e-3, 1e-2)
SMOOTHING = (0.05, 0.1, 0.2)


def searched(*, quick: bool) -> list[Row]:
    """Rows with settings of their own, in an order in which they can be chosen."""
    return [row for row in rows(quick=quick) if row.of == row.name]


def trials(config: Config) -> int:
    """How many trainings a choice takes."""
    made = searched(quick=config.quick)
    return len(RATES) - 1 + sum(len(_candidates(row, 1e-2, None)) for row in made)


def choose(
    config: Config,
    train: Split,
    validation: Split,
    classes: int,
    progress: common.Progress,
) -> dict[str, Any]:
    """The setting of each row with the best accuracy.

    First the rates of the student alone and of ``kl`` at T = 4; all rows with a teacher
    have the latter. Then the temperature of ``kl`` with its weight.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    runs = Runs(config, train, classes)
    progress.start("teacher")
    transfer = runs.transfer(SEED, [SEED])
    made: dict[str, Any] = {}

    def best(row: Row, settings: Sequence[Setting]) -> Setting:
        tried = []
        for setting in settings:
            progress.start(row.name)
            params = runs.fit(row, setting, transfer, SEED)
            accuracy = runs.accuracy(params, validation, runs.student)
            tried.append({**dataclasses.asdict(setting), "accuracy": accuracy})
            progress.done()
        chosen = max(
            zip(tried, settings, strict=True), key=lambda pair: pair[0]["accuracy"]
        )
        made[row.name] = {"chosen": dataclasses.asdict(chosen[1]), "tried": tried}
        return chosen[1]

    by_name = {row.name: row for row in searched(quick=config.quick)}
    fourth = by_name[temperature_row(4.0)]
    first = [Setting(rate=rate, weight=1.0, temperature=4.0) for rate in RATES[1:]]
    rate = best(fourth, first).rate
    made[f"{KL}, rate"] = made.pop(fourth.name)
    softened = [name for t in TEMPERATURES if (name := temperature_row(t)) in by_name]
    kl: Setting | None = None
    for name, row in by_name.items():
        best(row, _candidates(row, rate, kl))
        if name == softened[-1]:
            kl = _best_kl(made, softened)
    return {
        "data": config.data,
        "split": "validation",
        "examples": len(validation),
        "seed": SEED,
        "teacher": runs.accuracy(runs.teacher(SEED), validation),
        "rows": made,
    }


def _best_kl(made: dict[str, Any], softened: Sequence[str]) -> Setting:
    """The best temperature with its weight, which becomes the setting of ``kl``."""
    tried = [candidate for name in softened for candidate in made[name]["tried"]]
    best = dict(max(tried, key=lambda candidate: candidate["accuracy"]))
    best.pop("accuracy")
    made[KL] = {"chosen": best, "tried": tried}
    return Setting(**best)


def _candidates(row: Row, rate: float, kl: Setting | None) -> list[Setting]:
    if row.name == ALONE:
        return [Setting(rate=rate) for rate in RATES]
    if row.name == SMOOTH:
        return [Setting(rate=r, smoothing=s) for r in RATES[:2] for s in SMOOTHING]
    made = [
        Setting(rate=rate, weight=weight, temperature=temperature)
        for temperature in row.temperatures
        for weight in row.weights
    ]
    if row.kl and kl is not None:
        return [
            dataclasses.replace(s, kl=kl.weight, kl_temperature=kl.temperature)
            for s in made
        ]
    return made
