# SPDX-License-Identifier: Apache-2.0
"""Rewrite weights to be easier to quantize, without changing the function."""

from ._awq import awq
from ._batch_norm import Fold, fold_batch_norm, verify_folds
from ._compressors import EquivalentState
from ._equalize import cross_layer_equalization, smooth_quant
from ._links import Link
from ._rotate import hadamard, hadamard_rotation
from ._verify import verify_links

__all__ = [
    "Fold",
    "Link",
    "EquivalentState",
    "awq",
    "cross_layer_equalization",
    "fold_batch_norm",
    "hadamard",
    "hadamard_rotation",
    "smooth_quant",
    "verify_folds",
    "verify_links",
]
