# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, the defaults of each data set, and what was chosen."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import common

SIX = 6  # all stages together; halves and thirds of a training are whole sixths


@dataclasses.dataclass(frozen=True)
class Setting:
    """How a method is trained.

    Attributes:
      rate: learning rate at the start of its cosine decay.
      scale: of weights, a name of ``SCALES``; floats have none.
    """

    rate: float
    scale: str = ""


@dataclasses.dataclass(frozen=True)
class Choices:
    """What ``--choose`` found on validation data, by ``key_of``.

    Attributes:
      settings: of a method, with labels.
      teaching: weight and temperature of its teacher.
      weights: of the teacher, by ``key_of`` and temperature: ``"jointly, 2, T=4"``.
    """

    settings: dict[str, Setting]
    teaching: dict[str, tuple[float, float]]
    weights: dict[str, float]


def key_of(method: str, bits: int | None) -> str:
    """Whose choice it is: 3 bits take over that of 4."""
    return method if bits is None else f"{method}, {4 if bits == 3 else bits}"


def choices(*, quick: bool) -> Choices:
    """Those of the file beside this one; of a trial, with one kind of scale to compile."""
    content = common.chosen_by(__file__)

    def chosen(part: str) -> dict[str, Any]:
        return {name: trial["chosen"] for name, trial in content[part].items()}

    settings = {
        # One kind of scale is compiled faster than three.
        name: Setting(rate, "LSQ" if quick and scale else scale)
        for name, (rate, scale) in chosen("settings").items()
    }
    teaching = {name: (weight, t) for name, (weight, t) in chosen("teaching").items()}
    return Choices(settings, teaching, chosen("weights"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      epochs: of the float network, which all start from and which teaches.
      tuning: epochs that follow, in every row the same.
      batch_size: examples a step.
      widths: of the hidden layers.
      rate: learning rate of Adam at the start of its cosine decay, from scratch.
      learned: learning rate of learned scales, in units of that of the weights.
      sparsity: what is pruned.
      bits: widths of the rows.
      ramp: share of a stage in which its sparsity rises.
      every: steps between two masks.
      weight: of the teacher, where temperatures are compared at equal weights.
      temperatures: those that are compared.
      falling: those that fall to 1 in the course of a training.
      chosen: settings, teachers and weights of the methods.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    epochs: int
    tuning: int
    batch_size: int
    widths: tuple[int, int] = (128, 64)
    rate: float = 2e-3
    learned: float = 0.1
    sparsity: float = 0.9
    bits: tuple[int, ...] = (4, 3, 2)
    ramp: float = 0.5
    every: int = 10
    weight: float = 0.9
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    falling: tuple[float, ...] = (16.0,)
    chosen: Choices
    quick: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"epochs": 8, "tuning": 2, "batch_size": 128},
    # Settings are those of Fashion-MNIST; nothing was chosen here.
    "digits": {"epochs": 60, "tuning": 30, "batch_size": 64},
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, chosen=choices(quick=quick), **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        epochs=1,
        tuning=1,
        widths=(32, 16),
        bits=(2,),
        temperatures=(1.0, 16.0),
        falling=(16.0,),
        every=2,
    )
