# SPDX-License-Identifier: Apache-2.0
"""A row of a study of stages: a method, which is one stage or several; bits; a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ._config import SIX, Basis, Choices, Setting, key_of


@dataclasses.dataclass(frozen=True)
class Stage:
    """A training with one compressor.

    Attributes:
      prunes: whether sparsity rises (``"ramp"``), is kept (``"held"``), or is none.
      quantizes: whether the view is rounded.
      sixths: its share of the steps.
      taught_only: whether the teacher has all of the weight.
    """

    prunes: str = ""
    quantizes: bool = False
    sixths: int = SIX
    taught_only: bool = False


FLOAT = "float"
LONGER = "trained on"
PRUNE, QUANTIZE, JOINTLY = "prune", "quantize", "jointly"
PRUNE_FIRST, QUANTIZE_FIRST = "prune, quantize", "quantize, prune"
THREE = "prune, quantize, distill"
SMALL, NARROW = "small dense", "narrow, 4 bits"
NARROW_BITS = 4
AFTER = "not trained on: "

METHODS: dict[str, tuple[Stage, ...]] = {
    LONGER: (Stage(),),
    PRUNE: (Stage("ramp"),),
    QUANTIZE: (Stage(quantizes=True),),
    JOINTLY: (Stage("ramp", quantizes=True),),
    PRUNE_FIRST: (Stage("ramp", sixths=3), Stage("held", True, sixths=3)),
    # What is learned of the scales in the first stage is kept in the second.
    QUANTIZE_FIRST: (Stage("", True, sixths=3), Stage("ramp", True, sixths=3)),
    THREE: (
        Stage("ramp", sixths=2),
        Stage("held", True, sixths=2),
        Stage("held", True, sixths=2, taught_only=True),
    ),
}
# Pruned and rounded after the last step, not in training.
AFTERWARDS: dict[str, tuple[Stage, ...]] = {
    f"{AFTER}{PRUNE}": (Stage(), Stage("ramp", sixths=0)),
    f"{AFTER}{QUANTIZE}": (Stage(), Stage(quantizes=True, sixths=0)),
    f"{AFTER}{PRUNE_FIRST}": (Stage(), Stage("ramp", True, sixths=0)),
}
STAGES = METHODS | AFTERWARDS
SAME_AS = {THREE: PRUNE_FIRST, NARROW: QUANTIZE}  # they have the setting of another


@dataclasses.dataclass(frozen=True)
class Teaching:
    """The loss: labels and a teacher.

    Attributes:
      weight: of the teacher; labels have the rest.
      hot: temperature at the first step.
      cold: and at the last; between them it falls by the same factor in every step.
      squared: centered logits are compared, the limit of high temperatures.
    """

    weight: float = 0.0
    hot: float = 1.0
    cold: float = 1.0
    squared: bool = False

    @property
    def name(self) -> str:
        """``T=4``, ``16 to 1``, ``logits`` or ``labels``."""
        if not self.weight:
            return "labels"
        if self.squared:
            return "logits"
        if self.hot != self.cold:
            return f"{self.hot:g} to {self.cold:g}"
        return f"T={self.hot:g}"


LABELS = Teaching()


@dataclasses.dataclass(frozen=True)
class Row:
    """One cell of a table.

    Attributes:
      part: which table.
      method: a name of ``METHODS``.
      bits: of the weights; None of floats.
      teaching: by whom.
    """

    part: str
    method: str
    bits: int | None
    teaching: Teaching

    @property
    def taught(self) -> str:
        """By labels alone, or at which temperature."""
        return "last stage" if self.method == THREE else self.teaching.name

    @property
    def name(self) -> str:
        """For the progress bar."""
        bits = "" if self.bits is None else f" {self.bits}"
        return f"{self.method}{bits}, {self.taught}"

    def makes(self, record: Any) -> bool:
        """Whether a record, perhaps of another table, is of the network of this row."""
        of_record = record.method, record.bits, record.taught, record.weight
        return of_record == (self.method, self.bits, self.taught, self.teaching.weight)


def setting_of(
    settings: Mapping[str, Setting], method: str, bits: int | None
) -> Setting:
    """That of a method, out of all that were chosen."""
    if method in AFTERWARDS:
        scale = "mse" if quantizes(method) else ""
        return dataclasses.replace(settings[LONGER], scale=scale)
    return settings[key_of(SAME_AS.get(method, method), bits)]


def quantizes(method: str) -> bool:
    """Whether one of its stages does."""
    return any(stage.quantizes for stage in STAGES[method])


def taught(chosen: Choices, method: str, bits: int | None) -> Teaching:
    """By the teacher that was chosen for a method."""
    weight, temperature = chosen.teaching[key_of(method, bits)]
    return Teaching(weight, temperature, temperature)


def outer(config: Basis) -> list[int]:
    """The most bits and the fewest."""
    return list(dict.fromkeys([max(config.bits), min(config.bits)]))
