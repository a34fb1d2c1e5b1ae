# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jaxcompress as jc

from .. import common
from ..data import Dataset
from ..stages import (
    JOINTLY,
    LABELS,
    METHODS,
    SAME_AS,
    SMALL,
    THREE,
    Runs,
    Setting,
    Teaching,
    key_of,
    outer,
    quantizes,
    setting_of,
)
from ._config import Config

RATES = (1e-3, 2e-3, 4e-3)
SCALES = ("LSQ", "LSQ from mse", "mse")
WEIGHTS = (0.5, 0.9)
TEMPERATURES = (1.0, 4.0)
SEED = 100  # another than those that are reported


def choose(config: Config, data: Dataset, search: common.Search) -> dict[str, Any]:
    """The best settings.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    chooser = Chooser(config, data, search)
    best = chooser.settings()
    settings = {name: Setting(*trial["chosen"]) for name, trial in best.items()}
    return {
        "seed": SEED,
        "settings": best,
        "teaching": chooser.teaching(settings),
    }


class Chooser:
    """Tries settings on one seed."""

    def __init__(self, config: Config, data: Dataset, search: common.Search) -> None:
        self.config, self._data, self._search = config, data, search
        model = common.Perceptron(data.num_classes, config.widths)
        self._runs = Runs(config, model, data.train)

    def settings(self) -> dict[str, Any]:
        """Learning rate and scale of every method, with labels."""
        best: dict[str, Any] = {}
        for method, bits in self._methods():
            scales = self._few(SCALES) if quantizes(method) else ("",)
            key = key_of(method, bits)
            best[key] = self._best(
                f"{key}, setting",
                itertools.product(self._few(RATES), scales),
                lambda rate, scale, m=method, b=bits: self._accuracy(
                    m, b, Setting(rate, scale)
                ),
            )
        best[SMALL] = self._best(
            f"{SMALL}, setting",
            ((rate, "") for rate in self._few(RATES)),
            lambda rate, _: self._small_accuracy(rate, LABELS),
        )
        return best

    def teaching(self, settings: dict[str, Setting]) -> dict[str, Any]:
        """Weight and temperature of the teacher of every method."""
        grid = list(itertools.product(WEIGHTS, self._few(TEMPERATURES)))
        last = [(0.0, t) for t in self._few(TEMPERATURES)]  # of the last stage only
        methods = [
            *((method, bits, grid) for method, bits in self._methods()),
            *((THREE, bits, last) for bits in outer(self.config)),
        ]
        best: dict[str, Any] = {}
        for method, bits, candidates in methods:
            key, setting = key_of(method, bits), setting_of(settings, method, bits)
            best[key] = self._best(
                f"{key}, teacher",
                candidates,
                lambda weight, t, m=method, b=bits, s=setting: self._accuracy(
                    m, b, s, Teaching(weight, t, t)
                ),
            )
        rate = settings[SMALL].rate
        best[SMALL] = self._best(
            f"{SMALL}, teacher",
            grid,
            lambda weight, t: self._small_accuracy(rate, Teaching(weight, t, t)),
        )
        return best

    def _few(self, grid: tuple[Any, ...]) -> tuple[Any, ...]:
        return grid[:1] if self.config.quick else grid

    def _methods(self) -> Iterable[tuple[str, int | None]]:
        for method in METHODS:
            if method not in SAME_AS:
                for bits in outer(self.config) if quantizes(method) else (None,):
                    yield method, bits

    def _accuracy(
        self,
        method: str,
        bits: int | None,
        setting: Setting,
        teaching: Teaching = LABELS,
    ) -> float:
        shipped = self._runs.shipped(
            method, SEED, bits=bits, setting=setting, teaching=teaching
        )
        dense = jc.dense(shipped)
        return common.accuracy(self._runs.model, dense, self._data.validation)

    def _small_accuracy(self, rate: float, teaching: Teaching) -> float:
        """That of the smallest of the small dense networks."""

        def smallest() -> Runs:
            setting = Setting(RATES[0], SCALES[0])
            few = min(self.config.bits)
            joint = self._runs.shipped(JOINTLY, SEED, bits=few, setting=setting)
            nbytes = common.file_bytes(joint)
            model = common.no_larger(nbytes, self._data, self.config.widths)
            return Runs(self.config, model, self._data.train)

        small = self._runs.once("small", smallest)
        teacher = self._runs.teacher(SEED)
        network = small.trained(SEED, teaching, teacher, longer=True, rate=rate)
        return common.accuracy(small.model, network, self._data.validation)

    def _best(
        self,
        name: str,
        grid: Iterable[tuple[Any, ...]],
        measure: Callable[..., float],
    ) -> dict[str, Any]:
        best = self._search.best(name, grid, lambda values: measure(*values))
        return {
            "chosen": list(best.chosen),
            "accuracy": {
                common.text_of_candidate(values): accuracy
                for values, accuracy in best.values.items()
            },
        }
