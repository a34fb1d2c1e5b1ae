# SPDX-License-Identifier: Apache-2.0
"""What one run does: the settings of networks in stages, and the temperatures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from .. import common
from ..stages import Basis, basis_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Basis):
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      weight: of the teacher, where temperatures are compared at equal weights.
      temperatures: those that are compared.
      falling: those that fall to 1 in the course of a training.
      weights: of the teacher, as they were chosen: ``"jointly, 2, T=4"``.
    """

    weight: float = 0.9
    temperatures: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    falling: tuple[float, ...] = (16.0,)
    weights: Mapping[str, float]


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    trials = common.chosen_by(__file__)["weights"]
    weights = {name: trial["chosen"] for name, trial in trials.items()}
    small = {"temperatures": (1.0, 16.0), "falling": (16.0,)}
    return basis_of(
        Config, data, seeds=seeds, quick=quick, small=small, weights=weights
    )
