# SPDX-License-Identifier: Apache-2.0
"""Pruning: score, budget, pattern, mask. Each is a plain function a reader can swap."""

from ..numerics import inverse_hessian as inverse_hessian
from ._blocks import Blocks as Blocks, PerOutput as PerOutput, Slices as Slices
from ._budgets import (
    Budget as Budget,
    below as below,
    erk as erk,
    global_ as global_,
    owl as owl,
    per_path as per_path,
    uniform as uniform,
)
from ._dynamic import (
    DynamicState as DynamicState,
    Grow as Grow,
    dynamic as dynamic,
    grow_at_random as grow_at_random,
    grow_by_gradient as grow_by_gradient,
    rigl as rigl,
    set_training as set_training,
    static_sparse as static_sparse,
)
from ._fisher import (
    FisherBlocks as FisherBlocks,
    fisher_blocks as fisher_blocks,
    fisher_diagonal as fisher_diagonal,
)
from ._fits import by_path as by_path, fits as fits, left_out as left_out
from ._hold import HoldState as HoldState, hold_zeros as hold_zeros
from ._lottery import LotteryState as LotteryState, lottery_ticket as lottery_ticket
from ._movement import (
    movement_pruning as movement_pruning,
    soft_movement_pruning as soft_movement_pruning,
)
from ._obs import (
    obs_scores as obs_scores,
    optimal_brain_surgeon as optimal_brain_surgeon,
    reconstruct as reconstruct,
)
from ._one_shot import OneShotState as OneShotState
from ._patterns import NOfM as NOfM, Pattern as Pattern, unstructured as unstructured
from ._permute import (
    permute as permute,
    permuted_for as permuted_for,
    search_permutation as search_permutation,
)
from ._prices import (
    Price as Price,
    coded_bytes as coded_bytes,
    macs as macs,
    saving as saving,
)
from ._proximal import (
    Prox as Prox,
    ProximalState as ProximalState,
    group_lasso_pruning as group_lasso_pruning,
    group_soft_threshold as group_soft_threshold,
    hard_threshold as hard_threshold,
    l0_pruning as l0_pruning,
    l1_pruning as l1_pruning,
    proximal as proximal,
    soft_threshold as soft_threshold,
)
from ._prune import (
    PruneState as PruneState,
    magnitude_pruning as magnitude_pruning,
    prune as prune,
)
from ._pruned import (
    Pruned as Pruned,
    frozen as frozen,
    straight_through as straight_through,
    zeroed as zeroed,
)
from ._running import (
    Running as Running,
    averaged as averaged,
    fisher as fisher,
    movement as movement,
    obd as obd,
)
from ._schedules import (
    Trigger as Trigger,
    alternating as alternating,
    converged as converged,
    cubic as cubic,
    geometric as geometric,
    one_shot as one_shot,
    periodic as periodic,
)
from ._scores import (
    Score as Score,
    activation as activation,
    grasp as grasp,
    magnitude as magnitude,
    random as random,
    saliency as saliency,
    snip as snip,
    synflow as synflow,
    wanda as wanda,
)
from ._second_order import (
    fisher_pruning as fisher_pruning,
    obs_pruning as obs_pruning,
    sparsegpt_pruning as sparsegpt_pruning,
)
from ._sensitivity import (
    hessian_gradient as hessian_gradient,
    synaptic_flow as synaptic_flow,
)
from ._sparsegpt import row_grid as row_grid, sparsegpt as sparsegpt
from ._top_kast import TopKastState as TopKastState, top_kast as top_kast
