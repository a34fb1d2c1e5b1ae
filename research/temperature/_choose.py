# SPDX-License-Identifier: Apache-2.0
"""Choosing the weight of the teacher for every temperature, on the validation split."""

from __future__ import annotations

import dataclasses
import itertools
from functools import partial
from typing import Any

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ..stages import JOINTLY, QUANTIZE, Runs, Setting, Teaching, key_of, setting_of
from ._config import Config
from ._rows import kinds

WEIGHTS = (0.1, 0.5, 0.9)
SEED = 100  # another than those that are reported


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The best weights; rates and scales are those of ``joint_compression``.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    model = common.Perceptron(data.num_classes, config.widths)
    runs, bits = Runs(config, model, data.train), min(config.bits)

    def measure(method: str, setting: Setting, kind: Teaching, weight: float) -> float:
        teaching = dataclasses.replace(kind, weight=weight)
        shipped = runs.shipped(
            method, SEED, bits=bits, setting=setting, teaching=teaching
        )
        return common.accuracy(model, jc.dense(shipped), data.validation)

    best: dict[str, Any] = {}
    for method, kind in itertools.product((QUANTIZE, JOINTLY), kinds(config)):
        setting = setting_of(config.chosen.settings, method, bits)
        key = f"{key_of(method, bits)}, {kind.name}"
        candidates = WEIGHTS[:1] if config.quick else WEIGHTS
        found = search.best(
            f"{key}, weight", candidates, partial(measure, method, setting, kind)
        )
        accuracies = {f"{w:g}": value for w, value in found.values.items()}
        best[key] = {"chosen": found.chosen, "accuracy": accuracies}
    return {"seed": SEED, "weights": best}
