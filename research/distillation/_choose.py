# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import common
from ..data import Dataset
from ..students import ALONE, KL, Row, Runs, Setting
from ._config import Config
from ._rows import SMOOTH, TEMPERATURES, rows, temperature_row

SEED = 100  # another than those that are reported
RATES = (1e-3, 3e-3, 1e-2)
SMOOTHING = (0.05, 0.1, 0.2)


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The setting of each row with the best accuracy.

    First the rates of the student alone and of ``kl`` at T = 4; all rows with a teacher
    have the latter. Then the temperature of ``kl`` with its weight.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    runs, choices = Runs(config, data.train, data.num_classes), {}

    def measure(row: Row, setting: Setting) -> float:
        params = runs.fit(row, setting, runs.transfer(SEED, [SEED]), SEED)
        return runs.accuracy(params, data.validation, runs.student)

    def best(name: str, row: Row, settings: Sequence[Setting]) -> Setting:
        best = search.best(name, settings, partial(measure, row))
        choices[name] = {
            "chosen": dataclasses.asdict(best.chosen),
            "tried": [
                {**dataclasses.asdict(setting), "accuracy": accuracy}
                for setting, accuracy in best.values.items()
            ],
        }
        return best.chosen

    # Rows with settings of their own, in an order in which they can be chosen.
    own = {r.name: r for r in rows(quick=config.quick) if r.of == r.name}
    first = [Setting(rate=rate, weight=1.0, temperature=4.0) for rate in RATES[1:]]
    rate = best(f"{KL}, rate", own[temperature_row(4.0)], first).rate
    softened = [name for t in TEMPERATURES if (name := temperature_row(t)) in own]
    kl: Setting | None = None
    for name, row in own.items():
        best(name, row, _candidates(row, rate, kl))
        if name == softened[-1]:
            tried = [each for name in softened for each in choices[name]["tried"]]
            most = dict(max(tried, key=lambda each: each["accuracy"]))
            most.pop("accuracy")
            choices[KL], kl = {"chosen": most, "tried": tried}, Setting(**most)
    return {
        "seed": SEED,
        "teacher": search.measured(
            "teacher", lambda: runs.accuracy(runs.teacher(SEED), data.validation)
        ),
        "rows": choices,
    }


def _candidates(row: Row, rate: float, kl: Setting | None) -> list[Setting]:
    if row.name == ALONE:
        return [Setting(rate=rate) for rate in RATES]
    if row.name == SMOOTH:
        return [Setting(rate=r, smoothing=s) for r in RATES[:2] for s in SMOOTHING]
    settings = [
        Setting(rate=rate, weight=weight, temperature=temperature)
        for temperature in row.temperatures
        for weight in row.weights
    ]
    if row.kl and kl is not None:
        return [
            dataclasses.replace(s, kl=kl.weight, kl_temperature=kl.temperature)
            for s in settings
        ]
    return settings
