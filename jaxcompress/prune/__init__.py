# SPDX-License-Identifier: Apache-2.0
"""Pruning: compressors, and the scores, budgets, patterns and schedules they take."""

from . import budgets, patterns, schedules, scores, second_order, training, treatments
from ._prune import PruneState, magnitude_pruning, prune
from .second_order import fisher_pruning, obs_pruning, sparsegpt_pruning
from .training import (
    dynamic_sparse,
    group_lasso_pruning,
    hold_zeros,
    l0_pruning,
    l1_pruning,
    lottery_ticket,
    movement_pruning,
    proximal,
    rigl,
    set_training,
    soft_movement_pruning,
    static_sparse,
    top_kast,
)

__all__ = [
    "PruneState",
    "budgets",
    "dynamic_sparse",
    "fisher_pruning",
    "group_lasso_pruning",
    "hold_zeros",
    "l0_pruning",
    "l1_pruning",
    "lottery_ticket",
    "magnitude_pruning",
    "movement_pruning",
    "obs_pruning",
    "patterns",
    "proximal",
    "prune",
    "rigl",
    "schedules",
    "scores",
    "second_order",
    "set_training",
    "soft_movement_pruning",
    "sparsegpt_pruning",
    "static_sparse",
    "top_kast",
    "training",
    "treatments",
]
