# SPDX-License-Identifier: Apache-2.0
"""Compressed leaves: pytree nodes that stand where a dense array stood."""

from ._codebook import Codebook as Codebook
from ._leaf import Leaf as Leaf, dense as dense, is_leaf as is_leaf
from ._lowrank import LowRank as LowRank
from ._packed import PackedCodes as PackedCodes, pack_codes as pack_codes
from ._qarray import (
    QArray as QArray,
    Scales as Scales,
    dequantize as dequantize,
    scales_as_floats as scales_as_floats,
)
from ._sparse import SparseArray as SparseArray, sparsify as sparsify
