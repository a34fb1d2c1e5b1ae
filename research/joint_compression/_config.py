# SPDX-License-Identifier: Apache-2.0
"""What one run does: the settings of networks in stages, and no others."""

from __future__ import annotations

from ..stages import Basis as Config, basis_of


def config_of(data: str, *, seeds: int | None, quick: bool) -> Config:
    """The defaults of a data set, and what was asked for."""
    return basis_of(Config, data, seeds=seeds, quick=quick)
