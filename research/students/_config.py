# SPDX-License-Identifier: Apache-2.0
"""What studies of students share: settings, the defaults of each data set, choices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

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
class Basis:
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      data: name of the data set.
      seeds: how many runs, with seeds 0, 1, ...
      teachers: how many there are; a student has that of its seed, counted round.
      share: of the training split that the student has.
      epochs: of the student, over what it has.
      batch_size: its examples a step.
      widths: channels of its layers.
      teacher_widths: channels of the teacher's.
      teacher_epochs: over the whole training split.
      teacher_batch: its examples a step.
      teacher_rate: its learning rate.
      views: how many views there are of an image, where it has some.
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
    teacher_widths: tuple[int, ...] = (32, 64, 128)
    teacher_epochs: int
    teacher_batch: int
    teacher_rate: float = 2e-3
    views: int = 4
    chosen: Mapping[str, Setting]
    quick: bool = False


Config = TypeVar("Config", bound=Basis)
DEFAULTS: dict[str, dict[str, Any]] = {
    "fashion_mnist": {
        "share": 0.03,
        "epochs": 30,
        "teacher_epochs": 3,
        "teacher_batch": 128,
    },
    # Settings are those of Fashion-MNIST; nothing was chosen here.
    "digits": {"share": 0.2, "epochs": 100, "teacher_epochs": 40, "teacher_batch": 64},
}


def chosen() -> dict[str, Setting]:
    """What ``--choose`` of the study ``distillation`` wrote: others share its losses."""
    study = Path(__file__).parents[1] / "distillation" / "__init__.py"
    content = common.chosen_by(str(study))["rows"]
    return {name: Setting(**row["chosen"]) for name, row in content.items()}


def basis_of(
    kind: type[Config],
    data: str,
    *,
    seeds: int | None,
    quick: bool,
    small: Mapping[str, Any],
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
        kind(data=data, chosen=chosen(), **DEFAULTS[data], **own),
        seeds=seeds,
        quick=quick,
        epochs=3,
        widths=(4, 8),
        teacher_widths=(8, 16, 16),
        teacher_epochs=2,
        views=1,
        **small,
    )
