# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is chosen for a method.

    Attributes:
      damping: share of its mean that is added to the diagonal of a Hessian.
      block: SparseGPT: features whose masks are chosen together; Fisher: weights a block.
    """

    damping: float = 0.0
    block: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      sparsities: fractions of the weights that are removed.
      epochs: of the training of the dense network, and of the small dense ones.
      batch_size: examples a step.
      widths: of the hidden layers.
      rate: learning rate of Adam at the start of its cosine decay.
      examples: of the training split that the pruners see, at most.
      chosen: settings by method, from ``--choose``.
      greedy: whether to remove weights one by one, which takes long for wide layers.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    sparsities: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
    epochs: int
    batch_size: int
    widths: tuple[int, ...] = (300, 100)
    rate: float = 3e-3
    examples: int = 4096
    chosen: Mapping[str, Setting]
    greedy: bool = True
    quick: bool = False


# From `--choose` on digits, see choices.json.
CHOSEN: dict[str, Setting] = {
    "SparseGPT": Setting(0.1, 128),
    "OBS, at once": Setting(0.1),
    "OBS, one by one": Setting(0.001),
    "block Fisher": Setting(0.1, 16),
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 30, "batch_size": 64},
    # Settings are those of digits; nothing was chosen here.
    "fashion_mnist": {
        "sparsities": (0.5, 0.7, 0.8, 0.9, 0.95),
        "epochs": 3,
        "batch_size": 128,
        "greedy": False,
    },
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, chosen=CHOSEN, **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        sparsities=(0.5, 0.9),
        epochs=5,
        widths=(20,),
        examples=256,
    )
