# SPDX-License-Identifier: Apache-2.0
"""Shared exact numerics: straight-through values, k smallest, tiles, Hessians."""

from ._hessian import (
    EXACT,
    damped,
    inverse_hessian,
)
from ._smallest import smallest, smallest_per_leaf
from ._ste import ste
from ._tiles import (
    expand_tiles,
    reduce_tiles,
    tiles_as_rows,
)

__all__ = [
    "EXACT",
    "damped",
    "expand_tiles",
    "inverse_hessian",
    "reduce_tiles",
    "smallest",
    "smallest_per_leaf",
    "ste",
    "tiles_as_rows",
]
