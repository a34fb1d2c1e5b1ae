# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True)
class Exchange:
    """How a dynamic method exchanges weights.

    Attributes:
      drop: fraction of the kept weights in the first exchange.
      every: steps between two of them.
    """

    drop: float
    every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      sparsities: fractions of the weights that are zero in the end.
      epochs: of every training, sparse or dense.
      batch_size: examples a step.
      widths: of the hidden layers.
      rate: learning rate of Adam at the start of its cosine decay, of all rows.
      rigl: how RigL exchanges weights.
      set: how SET does.
      ramp_every: steps between two redrawings of gradual pruning.
      until: fraction of the steps after which masks do not change, of all methods.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    sparsities: tuple[float, ...] = (0.8, 0.9, 0.95, 0.98)
    epochs: int
    batch_size: int
    widths: tuple[int, ...] = (300, 100)
    rate: float
    rigl: Exchange
    set: Exchange
    ramp_every: int
    until: float = 0.75
    quick: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    # Rate and exchanges: from `--choose`, see choices.json.
    "digits": {
        "epochs": 100,
        "batch_size": 64,
        "rate": 3e-3,
        "rigl": Exchange(0.3, 50),
        "set": Exchange(0.3, 50),
        "ramp_every": 20,
    },
    # Those of digits; nothing was chosen here.
    "fashion_mnist": {
        "sparsities": (0.9, 0.98),
        "epochs": 3,
        "batch_size": 128,
        "rate": 3e-3,
        "rigl": Exchange(0.3, 50),
        "set": Exchange(0.3, 50),
        "ramp_every": 20,
    },
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        sparsities=(0.9,),
        epochs=8,
        widths=(30,),
        rigl=Exchange(0.3, 5),
        set=Exchange(0.3, 5),
        ramp_every=5,
    )
