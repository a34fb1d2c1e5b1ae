# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from typing import Any

from .. import common


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
      teachers: dense networks that teach together: the one that is compressed, and others
        that start from other random numbers.
      temperature: of distillation.
      distill: weight of the distillation loss; the labels' loss has the rest.
      multiplier: what one bit a weight costs in the loss of the last network, from half of
        its steps on.
      curve: whether other sparsities, widths and multipliers are trained as well.
    """

    data: str
    model: str = "lenet_300_100"
    seeds: int
    dense_epochs: int
    epochs: int
    batch_size: int
    learning_rate: float = 1e-3
    sparsity: float = 0.9
    bits: int = 4
    clusters: int | None = None
    teachers: int = 1
    temperature: float = 1.0
    distill: float = 0.9
    multiplier: float = 0.2
    curve: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"dense_epochs": 60, "epochs": 200, "batch_size": 64},
    "fashion_mnist": {
        "dense_epochs": 20,
        "epochs": 80,
        "batch_size": 128,
        "teachers": 3,
        "multiplier": 0.15,
    },
    "shakespeare": {
        "model": "characters",
        "dense_epochs": 8,
        "epochs": 8,
        "batch_size": 256,
        "sparsity": 0.8,
    },
}
TRIAL = {"dense_epochs": 3, "epochs": 12, "batch_size": 100}


def config_of(data: str, *, seeds: int | None, quick: bool, **options: Any) -> Config:
    """The defaults of a data set, and what was asked for.

    Raises:
      UsageError: if an option makes no sense.
    """
    settings = {**DEFAULTS[data], **(TRIAL if quick else {}), **options}
    config = Config(data=data, seeds=seeds or (1 if quick else 3), **settings)
    if (config.model == "characters") != (data == "shakespeare"):
        raise common.UsageError(f"--model {config.model} does not fit --data {data}.")
    for name in ("dense_epochs", "epochs", "batch_size", "teachers"):
        if getattr(config, name) < 1:
            option = "--" + name.replace("_", "-")
            raise common.UsageError(
                f"{option} {getattr(config, name)}: at least 1 is needed."
            )
    if not 0 <= config.distill <= 1:
        raise common.UsageError(f"--distill {config.distill} is outside [0, 1].")
    if config.temperature <= 0 or config.learning_rate <= 0:
        raise common.UsageError("--temperature and --learning-rate are positive.")
    return config
