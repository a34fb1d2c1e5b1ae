# SPDX-License-Identifier: Apache-2.0
"""Compressed leaves: pytree nodes that replace a dense array."""

from ._codebook import Codebook
from ._leaf import Leaf, dense, is_leaf
from ._lowrank import LowRank
from ._packed import PackedCodes, pack_codes
from ._qarray import (
    QArray,
    Scales,
    dequantize,
    scales_as_floats,
)
from ._sparse import SparseArray, sparsify

__all__ = [
    "Codebook",
    "Leaf",
    "LowRank",
    "PackedCodes",
    "QArray",
    "Scales",
    "SparseArray",
    "dense",
    "dequantize",
    "is_leaf",
    "pack_codes",
    "scales_as_floats",
    "sparsify",
]
