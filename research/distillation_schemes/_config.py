# SPDX-License-Identifier: Apache-2.0
"""What one run does: the settings of students, and those of the schemes."""

from __future__ import annotations

import dataclasses

from ..students import Basis, basis_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Basis):
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      assistant: channels of the network between teacher and student.
      generations: how often a student teaches the next.
      invention: steps of gradient descent in which an image is made up.
    """

    assistant: tuple[int, ...] = (16, 32)
    generations: int = 3
    invention: int = 50


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    small = {"assistant": (4, 8), "generations": 1, "invention": 2}
    return basis_of(Config, data, seeds=seeds, quick=quick, small=small)
