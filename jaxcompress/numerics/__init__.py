# SPDX-License-Identifier: Apache-2.0
"""Shared exact numerics: straight-through values, k smallest, k-means, tiles, Hessians."""

from ._clusters import find_clusters, move_clusters, nearest_cluster
from ._eager import as_partial, cond, one_program
from ._hessian import (
    EXACT,
    damped,
    inverse_hessian,
    output_error,
    shrunk,
)
from ._smallest import smallest, smallest_per_leaf
from ._ste import ste
from ._tiles import (
    divide_by_tiles,
    expand_tiles,
    reduce_tiles,
    tiles_as_rows,
)

__all__ = [
    "EXACT",
    "as_partial",
    "cond",
    "damped",
    "divide_by_tiles",
    "expand_tiles",
    "find_clusters",
    "inverse_hessian",
    "move_clusters",
    "nearest_cluster",
    "one_program",
    "output_error",
    "reduce_tiles",
    "shrunk",
    "smallest",
    "smallest_per_leaf",
    "ste",
    "tiles_as_rows",
]
