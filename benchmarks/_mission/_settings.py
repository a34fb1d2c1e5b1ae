# SPDX-License-Identifier: Apache-2.0
"""How long each network is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ._names import CONV, DENSE, RESNET


@dataclasses.dataclass(frozen=True)
class Training:
    """How a network is trained, and trained on while it is compressed.

    Attributes:
      steps: of the dense network.
      tuning: steps of a compressed one that begins at the dense one.
      batch_size: images in a step.
      rate: highest learning rate.
      tuning_rate: highest rate of tuning.
      kept: share of the channels of each layer that the narrow network keeps.
      pruned: percentage of the weights that are pruned in the smallest network.
    """

    steps: int
    tuning: int
    batch_size: int = 128
    rate: float = 2e-3
    tuning_rate: float = 3e-3
    kept: float = 0.75
    pruned: int = 90


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
      data: name of the data set.
      networks: how each network is trained.
      student: epochs of the student over the labels that it has, by name of the share.
      share: of the labels, where the student has few.
      calibration: images that set the ranges of int8.
      rounds: how often the files are timed in turn.
      runs: calls in each of these rounds.
      tiny: a few channels, to see that it runs.
    """

    data: str
    networks: Mapping[str, Training]
    student: tuple[int, int]
    rounds: int
    share: float = 0.03
    calibration: int = 1024
    runs: int = 100
    tiny: bool = False


EARLY = 0.3  # share of the steps after which filters are removed

FULL = Settings(
    data="fashion_mnist",
    networks={
        DENSE: Training(2150, 1720, kept=0.5, pruned=80),
        CONV: Training(1075, 400),
        RESNET: Training(500, 160, batch_size=64, rate=4e-3, pruned=50),
    },
    student=(50, 1),
    rounds=4,
)
QUICK = Settings(
    data="fashion_mnist",
    networks={
        DENSE: Training(860, 640, kept=0.5, pruned=80),
        CONV: Training(430, 220),
        RESNET: Training(200, 80, batch_size=64, rate=4e-3, pruned=50),
    },
    student=(40, 1),
    rounds=3,
)
TINY = Settings(
    data="digits",
    networks={
        DENSE: Training(30, 20, batch_size=32, kept=0.5),
        CONV: Training(30, 20, batch_size=32),
        RESNET: Training(20, 10, batch_size=32),
    },
    student=(2, 1),
    share=0.2,
    calibration=64,
    rounds=2,
    runs=3,
    tiny=True,
)
