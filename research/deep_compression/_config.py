# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of one run; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      model: name of the network.
      seeds: how many runs, with seeds 0, 1, ...
      dense_epochs: training of the dense network.
      epochs: training of each compressed network, which starts from the dense one.
      batch_size: examples a step.
      learning_rate: of Adam at the start of its cosine decay, in both trainings.
      sparsity: final fraction of pruned weights, over all weight matrices.
      bits: of a quantized weight; or
      clusters: shared values a matrix, instead of quantization.
      temperature: of distillation.
      distill: weight of the distillation loss; the labels' loss has the rest.
    """

    data: str
    model: str
    seeds: int
    dense_epochs: int
    epochs: int
    batch_size: int
    learning_rate: float
    sparsity: float
    bits: int
    clusters: int | None
    temperature: float
    distill: float

    def save(self, path: Path) -> None:
        """Write the settings beside their results."""
        path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read settings back."""
        return cls(**json.loads(path.read_text()))


_COMMON: dict[str, Any] = {
    "seeds": 3,
    "learning_rate": 1e-3,
    "bits": 4,
    "clusters": None,
    "temperature": 1.0,
    "distill": 0.9,
}

DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {
        **_COMMON,
        "model": "lenet_300_100",
        "dense_epochs": 60,
        "epochs": 200,
        "batch_size": 64,
        "sparsity": 0.9,
    },
    "fashion_mnist": {
        **_COMMON,
        "model": "lenet_300_100",
        "dense_epochs": 20,
        "epochs": 80,
        "batch_size": 128,
        "sparsity": 0.9,
    },
    "shakespeare": {
        **_COMMON,
        "model": "characters",
        "dense_epochs": 8,
        "epochs": 8,
        "batch_size": 256,
        "sparsity": 0.8,
    },
}
