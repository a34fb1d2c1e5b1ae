# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split. No function here is given the test split."""

from __future__ import annotations

import dataclasses
import statistics
from typing import Any

from .. import common
from ..data import Split
from ._config import Config
from ._methods import METHODS, Method
from ._runs import Runs

SPARSITIES = (0.8, 0.9)
SEEDS = (100, 101, 102)  # others than those that are reported


def open_methods() -> dict[str, Method]:
    """The methods for which there is something to choose."""
    return {name: m for name, m in METHODS.items() if len(m.candidates) > 1}


def trials() -> int:
    """How many prunings a choice takes."""
    candidates = sum(len(m.candidates) for m in open_methods().values())
    return candidates * len(SEEDS) * len(SPARSITIES)


def choose(
    config: Config,
    train: Split,
    validation: Split,
    classes: int,
    progress: common.Progress,
) -> dict[str, Any]:
    """The setting of each method with the best mean over sparsities and seeds.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    runs = Runs(config, common.Perceptron(classes, config.widths), train)
    networks = [runs.trained(seed) for seed in SEEDS]
    made: dict[str, Any] = {}
    for name, method in open_methods().items():
        rows = []
        for setting in method.candidates:
            progress.start(f"{name}, {setting.damping:g}, {setting.block}")
            accuracies: dict[str, float] = {}
            for sparsity in SPARSITIES:
                right = []
                for network in networks:
                    pruned = runs.pruned(network, name, sparsity, setting)
                    right.append(common.accuracy(runs.model, pruned, validation))
                    progress.done()
                accuracies[f"{sparsity:g}"] = statistics.fmean(right)
            rows.append({**dataclasses.asdict(setting), "accuracy": accuracies})
        best = max(rows, key=lambda row: statistics.fmean(row["accuracy"].values()))
        made[name] = {"chosen": best, "all": rows}
    return {
        "split": "validation",
        "examples": len(validation),
        "seeds": SEEDS,
        "sparsities": SPARSITIES,
        "methods": made,
    }
