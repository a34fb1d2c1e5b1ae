# SPDX-License-Identifier: Apache-2.0
"""Choosing learning rates on the validation split; nothing here is given the test set."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import old_common as common
from ..data import Split
from ._config import Config
from ._network import ConvNet
from ._rows import FOUR, Row, rows
from ._runs import Runs

RATES = (1e-3, 2e-3, 4e-3)
SEED = 100  # another than those that are reported
TUNING = 1  # epochs; fewer than in the study, for time


def families(config: Config) -> dict[str, Row]:
    """The row that stands for each setting: the narrowest of weights only."""
    made: dict[str, Row] = {}
    for row in rows(quick=config.quick):
        alone = row.times == 1 and row.method != FOUR and "A" not in row.bits
        if row.start == "float" and alone:
            made[row.setting] = row
    return made


def trials(config: Config) -> int:
    """How many trainings a choice takes."""
    return len(families(config)) * len(RATES)


def choose(
    config: Config,
    train: Split,
    validation: Split,
    classes: int,
    progress: common.Progress,
) -> dict[str, Any]:
    """The learning rate of each setting with the best accuracy.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    config = dataclasses.replace(config, tuning=TUNING)
    runs = Runs(config, ConvNet(classes, config.widths), train)
    network = runs.trained(SEED)
    made: dict[str, Any] = {}
    for name, row in families(config).items():
        accuracies = {}
        for rate in RATES:
            progress.start(f"{name}, {rate:g}")
            trained = runs.made(row, network, SEED, rate)
            accuracies[rate] = runs.accuracy(row, trained, validation)
            progress.done()
        made[name] = {
            "row": row.name,
            "chosen": max(RATES, key=lambda rate: accuracies[rate]),
            "accuracy": {f"{rate:g}": value for rate, value in accuracies.items()},
        }
    return {
        "data": config.data,
        "split": "validation",
        "examples": len(validation),
        "seed": SEED,
        "tuning": TUNING,
        "rates": made,
    }
