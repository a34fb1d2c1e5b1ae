# SPDX-License-Identifier: Apache-2.0
"""One-shot pruning: prune once from statistics, and adjust the remaining weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..._compressor import Compressor, PyTree
from ..._refuse import refuse_unfit
from ..._select import paths_and_leaves
from ...layerwise import Evidence
from .._prune import check_arguments, make_full_masks
from ..patterns._protocol import Pattern
from ..schedules import share_at
from ..treatments import keep

Schedule = optax.Schedule
ByPath = dict[str, jax.Array]
Solve = Callable[[ByPath, dict[str, Any], jax.Array], tuple[ByPath, ByPath]]
"""``(weights, statistics, sparsity) -> (weights, keep)``: all by path, the sparsity a
float32 scalar; ``keep`` is bool."""


class OneShotState(NamedTuple):
    """State of a one-shot pruner."""

    count: jax.Array  # int32 []: updates so far that were given statistics
    masks: PyTree  # bool, like params; True where the weight is kept


FISHER = Evidence(
    "fisher", "blocks", "prune.scores.fisher_blocks(loss_fn, params, batch)"
)


def prune_once(
    sparsity: float | Schedule,
    evidence: Evidence,
    solve: Solve,
    pattern: Pattern | None = None,
) -> Compressor:
    """Prune in the updates that receive statistics; hold the masks in all others.

    Until the first such update all masks are True, and ``finalize`` warns. Pruned weights
    score as zeros, so they rank lowest again: a rising schedule with new statistics after
    each round of training prunes gradually.

    Args:
      sparsity: fraction of the weights to prune, in [0, 1), or an optax schedule of it
        over the number of updates that received statistics.
      evidence: the extra that holds the statistics.
      solve: chooses the masks and adjusts the kept weights.
      pattern: which weights are pruned together, to check the sparsity against.

    Raises:
      ValueError: if the sparsity is outside [0, 1) or beyond what the pattern allows.
    """
    check_arguments(sparsity, pattern)
    schedule = sparsity if callable(sparsity) else lambda count: sparsity

    def init(params: PyTree) -> OneShotState:
        refuse_unfit(params)
        return OneShotState(jnp.zeros((), jnp.int32), make_full_masks(params))

    def apply(params: PyTree, state: OneShotState) -> PyTree:
        return jax.tree.map(keep, params, state.masks)

    def update(
        params: PyTree, state: OneShotState, **extras: Any
    ) -> tuple[PyTree, OneShotState]:
        view = apply(params, state)
        given = extras.get(evidence.name)
        if given is None:
            return view, state
        refuse_unfit(view)
        count = state.count + 1
        paths, leaves, treedef = paths_and_leaves(view)
        statistics = evidence.by_path(given, paths, treedef)
        share = share_at(schedule, count, "sparsity")
        weights, masks = solve(dict(zip(paths, leaves, strict=True)), statistics, share)
        # A solver may gather; a zero made of the leaf brings its results back to where
        # the leaf is.
        moved = [
            weights[p].astype(x.dtype) + (x - x)
            for p, x in zip(paths, leaves, strict=True)
        ]
        kept = treedef.unflatten(
            [masks[p] | jnp.isnan(x - x) for p, x in zip(paths, leaves, strict=True)]
        )
        # A schedule that is NaN under jit changes nothing.
        hold = jnp.isnan(share)
        kept = jax.tree.map(lambda m, old: jnp.where(hold, old, m), kept, state.masks)
        moved = [jnp.where(hold, x, m) for m, x in zip(moved, leaves, strict=True)]
        # Rounded to the leaf's dtype, a kept weight may be zero; a pruned one always is.
        return jax.tree.map(keep, treedef.unflatten(moved), kept), OneShotState(
            count, kept
        )

    def finalize(params: PyTree, state: OneShotState) -> PyTree:
        evidence.warn_if_never_given(state.count, "no weight is pruned")
        return apply(params, state)

    return Compressor(init=init, apply=apply, update=update, finalize=finalize)
