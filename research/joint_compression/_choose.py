# SPDX-License-Identifier: Apache-2.0
"""Choosing settings on the validation split; nothing here is given the test set."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax

import jaxcompress as jc

from .. import old_common as common
from ..data import Dataset, Split
from ._config import Config, Setting, key_of
from ._rows import (
    JOINTLY,
    LABELS,
    METHODS,
    QUANTIZE,
    SAME_AS,
    SMALL,
    THREE,
    Teaching,
    kinds,
    outer,
    quantizes,
)
from ._runs import Runs
from ._train import Params

RATES = (1e-3, 2e-3, 4e-3)
SCALES = ("LSQ", "LSQ from mse", "mse")
WEIGHTS = (0.5, 0.9)
TEMPERATURES = (1.0, 4.0)
ANEW = (0.1, 0.5, 0.9)  # weights, for each of the temperatures of the second question
SEED = 100  # another than those that are reported
Made = tuple[Runs, Params]  # a network, and what trained it


class Chooser:
    """Tries settings on one seed."""

    def __init__(
        self, config: Config, data: Dataset, progress: common.Progress | None
    ) -> None:
        self.config, self._progress = config, progress
        # All but the test set.
        self._train, self._validation = data.train, data.validation
        self._data = dataclasses.replace(
            data, test=Split(data.test.x[:0], data.test.y[:0])
        )
        model = common.Perceptron(data.num_classes, config.widths)
        self._runs = Runs(config, model, self._train)
        self._network, self._teacher = None, None
        self._small: Runs | None = None
        self.tried = 0

    def settings(self) -> dict[str, Any]:
        """Learning rate and scale of every method, with labels."""
        made: dict[str, Any] = {}
        for method, bits in self._methods():
            scales = self._few(SCALES) if quantizes(method) else ("",)
            made[key_of(method, bits)] = self._best(
                itertools.product(self._few(RATES), scales),
                functools.partial(self._set, method, bits),
            )
        made[SMALL] = self._best(
            ((rate, "") for rate in self._few(RATES)),
            lambda rate, _: self._scratch(rate),
        )
        return made

    def teaching(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Weight and temperature of the teacher of every method."""
        grid = list(itertools.product(WEIGHTS, self._few(TEMPERATURES)))
        made: dict[str, Any] = {}
        for method, bits in self._methods():
            setting = _setting(settings, method, bits)
            made[key_of(method, bits)] = self._best(
                grid,
                functools.partial(self._taught, method, bits, setting),
            )
        for bits in outer(self.config):
            setting = _setting(settings, THREE, bits)
            made[key_of(THREE, bits)] = self._best(
                [(0.0, t) for t in self._few(TEMPERATURES)],  # but for the last stage
                functools.partial(self._taught, THREE, bits, setting),
            )
        rate = settings[SMALL]["chosen"][0]
        made[SMALL] = self._best(
            grid, lambda w, t: self._scratch(rate, Teaching(w, t, t))
        )
        return made

    def weights(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Weight of the teacher for every temperature of the second question."""
        made: dict[str, Any] = {}
        bits = min(self.config.bits)
        for method, kind in itertools.product((QUANTIZE, JOINTLY), kinds(self.config)):
            setting = _setting(settings, method, bits)
            best = self._best(
                [(w,) for w in self._few(ANEW)],
                functools.partial(self._weighed, method, bits, setting, kind),
            )
            best["chosen"] = best["chosen"][0]
            made[f"{key_of(method, bits)}, {kind.name}"] = best
        return made

    def _few(self, grid: tuple[Any, ...]) -> tuple[Any, ...]:
        return grid[:1] if self.config.quick else grid

    def _methods(self) -> Iterable[tuple[str, int | None]]:
        for method in METHODS:
            if method not in SAME_AS:
                for bits in outer(self.config) if quantizes(method) else (None,):
                    yield method, bits

    def _set(self, method: str, bits: int | None, rate: float, scale: str) -> Made:
        return self._made(method, bits, Setting(rate, scale))

    def _taught(
        self, method: str, bits: int | None, setting: Setting, weight: float, t: float
    ) -> Made:
        return self._made(method, bits, setting, Teaching(weight, t, t))

    def _weighed(
        self,
        method: str,
        bits: int | None,
        setting: Setting,
        kind: Teaching,
        weight: float,
    ) -> Made:
        kind = dataclasses.replace(kind, weight=weight)
        return self._made(method, bits, setting, kind)

    def _made(
        self,
        method: str,
        bits: int | None,
        setting: Setting,
        teaching: Teaching = LABELS,
    ) -> Made:
        if self._network is None:
            self._network = self._runs.trained(SEED)
            self._teacher = self._runs.logits(self._network)
        made = self._runs.made(
            METHODS[method], self._network, SEED, bits=bits, setting=setting,
            teaching=teaching, teacher=self._teacher,
        )  # fmt: skip
        return self._runs, made

    def _scratch(self, rate: float, teaching: Teaching = LABELS) -> Made:
        """The smallest of the small dense networks."""
        if self._small is None:
            setting = Setting(RATES[0], SCALES[0])
            _, joint = self._made(JOINTLY, min(self.config.bits), setting)
            model = common.no_larger(
                common.file_bytes(joint), self._data, self.config.widths
            )
            self._small = Runs(self.config, model, self._train)
        trained = self._small.trained(
            SEED, self._teacher, teaching, longer=True, rate=rate
        )
        return self._small, trained

    def _best(
        self, grid: Iterable[tuple[Any, ...]], make: Callable[..., Made]
    ) -> dict[str, Any]:
        """What of a grid has the best accuracy; the first of equals."""
        accuracies: dict[tuple[Any, ...], float] = {}
        for values in grid:
            if self._progress is None:  # only counted
                accuracies[values] = 0.0
            else:
                runs, made = make(*values)
                jax.block_until_ready(jax.tree.leaves(made))
                accuracies[values] = common.accuracy(
                    runs.model, jc.dense(made), self._validation
                )
                self._progress.done()
            self.tried += 1
        return {
            "chosen": list(max(accuracies, key=lambda values: accuracies[values])),
            "accuracy": {
                ", ".join(v if isinstance(v, str) else f"{v:g}" for v in values): a
                for values, a in accuracies.items()
            },
        }


def _setting(settings: dict[str, Any], method: str, bits: int | None) -> Setting:
    return Setting(*settings[key_of(SAME_AS.get(method, method), bits)]["chosen"])


def trials(config: Config, data: Dataset) -> int:
    """How many trainings a choice takes."""
    chooser = Chooser(config, data, None)
    _all(chooser)
    return chooser.tried


def choose(config: Config, data: Dataset, progress: common.Progress) -> dict[str, Any]:
    """The best settings.

    Returns:
      What was chosen, and the validation accuracy of every candidate.
    """
    made = _all(Chooser(config, data, progress))
    about = {"data": config.data, "split": "validation", "seed": SEED}
    return {**about, "examples": len(data.validation), **made}


def _all(chooser: Chooser) -> dict[str, Any]:
    settings = chooser.settings()
    return {
        "settings": settings,
        "teaching": chooser.teaching(settings),
        "weights": chooser.weights(settings),
    }
