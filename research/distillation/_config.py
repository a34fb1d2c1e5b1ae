# SPDX-License-Identifier: Apache-2.0
"""What one run does: settings, and the defaults of each data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .. import common


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """What is chosen for a row.

    Attributes:
      rate: learning rate of Adam at the start of its cosine decay.
      weight: of the loss.
      temperature: of the loss.
      smoothing: share of a label that goes to all classes alike.
      labels: weight of the cross-entropy of the labels.
      kl: weight of ``kl``, where it is added to another loss.
      kl_temperature: its temperature.
    """

    rate: float
    weight: float = 0.0
    temperature: float = 1.0
    smoothing: float = 0.0
    labels: float = 1.0
    kl: float = 0.0
    kl_temperature: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      teachers: how many there are; a student has that of its seed, counted round.
      share: of the training split that the student has.
      epochs: of the student, over what it has.
      batch_size: its examples a step.
      widths: channels of its layers.
      assistant: channels of the network between.
      teacher_widths: channels of the teacher's.
      teacher_epochs: over the whole training split.
      teacher_batch: its examples a step.
      teacher_rate: its learning rate.
      views: how many views there are of an image, where it has some.
      invention: steps of gradient descent in which an image is made up.
      generations: how often a student teaches the next.
      decay: of the average of the student's own parameters.
      omitted: classes that a transfer set lacks, one at a time.
      omitted_temperatures: of ``kl`` there.
      omitted_epochs: over the whole training split.
      chosen: settings by row.
      quick: whether this is a trial.
    """

    data: str
    seeds: int = 3
    teachers: int = 2
    share: float
    epochs: int
    batch_size: int = 64
    widths: tuple[int, ...] = (8, 16)
    assistant: tuple[int, ...] = (16, 32)
    teacher_widths: tuple[int, ...] = (32, 64, 128)
    teacher_epochs: int
    teacher_batch: int
    teacher_rate: float = 2e-3
    views: int = 4
    invention: int = 50
    generations: int = 3
    decay: float = 0.99
    omitted: tuple[int, ...]
    omitted_temperatures: tuple[float, ...] = (1.0, 4.0, 20.0)
    omitted_epochs: int
    chosen: Mapping[str, Setting]
    quick: bool = False


DEFAULTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {
        "share": 0.03,
        "epochs": 30,
        "teacher_epochs": 3,
        "teacher_batch": 128,
        "omitted": (8, 9),
        "omitted_epochs": 1,
    },
    # Settings are those of Fashion-MNIST; nothing was chosen here.
    "digits": {
        "share": 0.2,
        "epochs": 100,
        "teacher_epochs": 40,
        "teacher_batch": 64,
        "omitted": (3,),
        "omitted_epochs": 40,
    },
}


def chosen() -> dict[str, Setting]:
    """What ``--choose`` wrote."""
    content = common.chosen_by(__file__)["rows"]
    return {name: Setting(**row["chosen"]) for name, row in content.items()}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return common.adjusted(
        Config(data=data, chosen=chosen(), **DEFAULTS[data]),
        seeds=seeds,
        quick=quick,
        epochs=3,
        widths=(4, 8),
        assistant=(4, 8),
        teacher_widths=(8, 16, 16),
        teacher_epochs=2,
        views=1,
        generations=1,
        omitted_temperatures=(4.0,),
        omitted_epochs=1,
    )
