# SPDX-License-Identifier: Apache-2.0
"""Sparsity patterns: N:M, blocks, rows and columns, and unstructured."""

from ._blocks import Blocks, PerOutput, Slices
from ._by_path import by_path, fits, left_out
from ._permute import permute, permuted_for, search_permutation
from ._protocol import NOfM, Pattern, unstructured

__all__ = [
    "Blocks",
    "NOfM",
    "Pattern",
    "PerOutput",
    "Slices",
    "by_path",
    "fits",
    "left_out",
    "permute",
    "permuted_for",
    "search_permutation",
    "unstructured",
]
