# SPDX-License-Identifier: Apache-2.0
"""Pruners that adjust the remaining weights to make up for the pruned ones."""

from ._compressors import fisher_pruning, obs_pruning, sparsegpt_pruning
from ._obs import obs_scores, optimal_brain_surgeon, reconstruct
from ._one_shot import OneShotState
from ._sparsegpt import row_grid, sparsegpt

__all__ = [
    "OneShotState",
    "fisher_pruning",
    "obs_pruning",
    "obs_scores",
    "optimal_brain_surgeon",
    "reconstruct",
    "row_grid",
    "sparsegpt",
    "sparsegpt_pruning",
]
