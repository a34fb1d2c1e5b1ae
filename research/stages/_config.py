# SPDX-License-Identifier: Apache-2.0
"""What studies of stages share: settings, the defaults of each data set, choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

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
    """

    settings: dict[str, Setting]
    teaching: dict[str, tuple[float, float]]


def key_of(method: str, bits: int | None) -> str:
    """Whose choice it is: 3 bits take over that of 4."""
    return method if bits is None else f"{method}, {4 if bits == 3 else bits}"


def choices(*, quick: bool) -> Choices:
    """Those of ``joint_compression``; of a trial, with one kind of scale to compile."""
    study = Path(__file__).parents[1] / "joint_compression" / "__init__.py"
    content = common.chosen_by(str(study))

    def chosen(part: str) -> dict[str, Any]:
        return {name: trial["chosen"] for name, trial in content[part].items()}

    settings = {
        # One kind of scale is compiled faster than three.
        name: Setting(rate, "LSQ" if quick and scale else scale)
        for name, (rate, scale) in chosen("settings").items()
    }
    teaching = {name: (weight, t) for name, (weight, t) in chosen("teaching").items()}
    return Choices(settings, teaching)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Basis:
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
      chosen: settings and teachers of the methods.
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
    chosen: Choices
    quick: bool = False


Config = TypeVar("Config", bound=Basis)
DEFAULTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"epochs": 8, "tuning": 2, "batch_size": 128},
    # Settings are those of Fashion-MNIST; nothing was chosen here.
    "digits": {"epochs": 60, "tuning": 30, "batch_size": 64},
}


def basis_of(
    kind: type[Config],
    data: str,
    *,
    seeds: int | None,
    quick: bool,
    small: Mapping[str, Any] = MappingProxyType({}),
    **own: Any,
) -> Config:
    """The defaults of a data set, and what was asked for.

    Args:
      kind: settings of the study.
      data: name of the data set.
      seeds: how many, or None for the default.
      quick: whether this is a trial.
      small: settings of the study's own in a trial.
      **own: settings of the study's own.
    """
    return common.adjusted(
        kind(data=data, chosen=choices(quick=quick), **DEFAULTS[data], **own),
        seeds=seeds,
        quick=quick,
        epochs=1,
        tuning=1,
        widths=(32, 16),
        bits=(2,),
        every=2,
        **small,
    )
