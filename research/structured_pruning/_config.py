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
      factor: how many times fewer MACs, for every row.
      curve: the same, for the rows of the curve.
      epochs: of the dense network.
      more: epochs after pruning, and of all others on top.
      batch_size: examples a step.
      widths: of the stages.
      blocks: in every stage.
      stem_stride: of the first convolution.
      examples: of the training split that scores look at, at most.
      batches: images of a call that is timed; the test set is run in the second.
      rounds: of timing.
      rate: learning rate of Adam at the start of the cosine decay, from scratch.
      later_rate: the same, of a trained network that is pruned or trained on.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    factor: float = 2.1
    curve: tuple[float, ...] = (1.5, 2.1, 3.0, 4.0, 6.0)
    epochs: float
    more: float
    batch_size: int
    widths: tuple[int, ...]
    blocks: int = 2
    stem_stride: int
    examples: int = 256
    batches: tuple[int, int] = (1, 40)
    rounds: int = 60
    rate: float = 1e-2
    later_rate: float = 1e-3
    quick: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {
        "epochs": 20,
        "more": 10,
        "batch_size": 64,
        "widths": (8, 16, 32),
        "stem_stride": 1,
    },
    "fashion_mnist": {
        "epochs": 0.5,
        "more": 0.25,
        "batch_size": 64,
        "widths": (16, 32, 64),
        "stem_stride": 4,
    },
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        curve=(2.1, 3.0),
        epochs=3,
        more=1,
        widths=(4, 8),
        blocks=1,
        examples=32,
        rounds=2,
    )
