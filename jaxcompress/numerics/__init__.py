# SPDX-License-Identifier: Apache-2.0
"""Exact numerics that the techniques share: straight-through values, ranks, tiles."""

from ._hessian import (
    EXACT as EXACT,
    damped as damped,
    inverse_hessian as inverse_hessian,
)
from ._smallest import smallest as smallest, smallest_per_leaf as smallest_per_leaf
from ._ste import ste as ste
from ._tiles import (
    expand_tiles as expand_tiles,
    reduce_tiles as reduce_tiles,
    tiles_as_rows as tiles_as_rows,
)
