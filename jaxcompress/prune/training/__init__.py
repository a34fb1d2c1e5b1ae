# SPDX-License-Identifier: Apache-2.0
"""Compressors that prune a network while it trains."""

from ._dynamic import (
    DynamicState,
    Grow,
    dynamic_sparse,
    grow_at_random,
    grow_by_gradient,
    rigl,
    set_training,
    static_sparse,
)
from ._hold_zeros import HoldState, hold_zeros
from ._lottery import LotteryState, lottery_ticket
from ._movement import movement_pruning, soft_movement_pruning
from ._proximal import (
    Prox,
    ProximalState,
    group_lasso_pruning,
    group_soft_threshold,
    hard_threshold,
    l0_pruning,
    l1_pruning,
    proximal,
    soft_threshold,
)
from ._top_kast import TopKastState, top_kast

__all__ = [
    "DynamicState",
    "Grow",
    "HoldState",
    "LotteryState",
    "Prox",
    "ProximalState",
    "TopKastState",
    "dynamic_sparse",
    "group_lasso_pruning",
    "group_soft_threshold",
    "grow_at_random",
    "grow_by_gradient",
    "hard_threshold",
    "hold_zeros",
    "l0_pruning",
    "l1_pruning",
    "lottery_ticket",
    "movement_pruning",
    "proximal",
    "rigl",
    "set_training",
    "soft_movement_pruning",
    "soft_threshold",
    "static_sparse",
    "top_kast",
]
