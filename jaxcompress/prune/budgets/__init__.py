# SPDX-License-Identifier: Apache-2.0
"""Budgets: how one overall sparsity is divided among the leaves of a tree."""

from ._prices import Price, coded_bytes, macs, saving
from ._sparsity import Budget, below, erk, global_, owl, per_path, uniform

__all__ = [
    "Budget",
    "Price",
    "below",
    "coded_bytes",
    "erk",
    "global_",
    "macs",
    "owl",
    "per_path",
    "saving",
    "uniform",
]
