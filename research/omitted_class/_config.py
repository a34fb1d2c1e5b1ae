# SPDX-License-Identifier: Apache-2.0
"""What one run does: the settings of students, and the classes that they lack."""

from __future__ import annotations

import dataclasses
from typing import Any

from ..students import Basis, basis_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Basis):
    """Settings of a study; together with the seed they decide every bit of it.

    Attributes:
      omitted: classes that a transfer set lacks, one at a time.
      omitted_temperatures: of ``kl`` there.
      omitted_epochs: over the whole training split.
    """

    omitted: tuple[int, ...]
    omitted_temperatures: tuple[float, ...] = (1.0, 4.0, 20.0)
    omitted_epochs: int


OWN: dict[str, dict[str, Any]] = {
    "fashion_mnist": {"omitted": (8, 9), "omitted_epochs": 1},
    "digits": {"omitted": (3,), "omitted_epochs": 40},
}


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    small = {"omitted_temperatures": (4.0,), "omitted_epochs": 1}
    return basis_of(Config, data, seeds=seeds, quick=quick, small=small, **OWN[data])
