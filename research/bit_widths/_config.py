# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      epochs: of the float network.
      tuning: epochs that it is trained on for.
      batch_size: examples a step.
      widths: channels of the convolutions.
      rate: learning rate of Adam at the start of its cosine decay, of whatever starts
        from scratch.
      rates: those of what is trained on, by ``Row.setting``.
      learned: learning rate of learned scales, in units of that of the weights.
      examples: of the training split that GPTQ is shown.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    epochs: int
    tuning: int
    batch_size: int
    widths: tuple[int, ...] = (16, 32, 64)
    rate: float = 3e-3
    rates: dict[str, float]
    learned: float = 0.1
    examples: int = 4096
    quick: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"epochs": 4, "tuning": 2, "batch_size": 128},
    # Rates are those of Fashion-MNIST; nothing was chosen here.
    "digits": {"epochs": 40, "tuning": 10, "batch_size": 64},
}


def rates() -> dict[str, float]:
    """What ``--choose --data fashion_mnist`` wrote."""
    chosen = common.chosen_by(__file__)["rates"]
    return {name: trial["chosen"] for name, trial in chosen.items()}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, rates=rates(), **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        epochs=1,
        tuning=1,
        batch_size=128,
        widths=(8,),
        examples=128,
    )
