# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    None was chosen by results: rate, batch size and share are those of the paper for
    LeNet-300-100, the lengths were set before the first run.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      rounds: of pruning.
      share: of the weights that are left, pruned in each round.
      epochs: of the training of a round, and of every network that is compared.
      early: epochs to the early step that is rewound to.
      batch_size: examples a step.
      rate: learning rate of Adam, constant.
      widths: of the hidden layers.
      shown: rounds in the table; all are in the file and the picture.
      once: those whose sparsity is pruned to at once as well.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    rounds: int = 18
    share: float = 0.2
    epochs: int
    early: float = 1
    batch_size: int = 60
    rate: float = 1.2e-3
    widths: tuple[int, ...] = (300, 100)
    shown: tuple[int, ...] = (0, 3, 7, 10, 13, 15, 18)
    once: tuple[int, ...] = (3, 7, 10, 13, 15, 18)
    quick: bool = False

    def sparsity(self, rounds: int) -> float:
        """After so many rounds."""
        return 1 - (1 - self.share) ** rounds


DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"epochs": 40},
    # One short epoch a round, and fewer rounds: an hour otherwise.
    "fashion_mnist": {
        "epochs": 1,
        "early": 0.1,
        "rounds": 5,
        "share": 0.5,
        "shown": (0, 1, 2, 3, 4, 5),
        "once": (1, 3, 5),
    },
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        rounds=3,
        share=0.6,
        epochs=4,
        widths=(30,),
        shown=(0, 1, 3),
        once=(3,),
    )
