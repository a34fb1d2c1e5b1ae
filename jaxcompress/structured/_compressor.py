# SPDX-License-Identifier: Apache-2.0
"""Structured pruning during training, as a compressor."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._arguments import check_counts, check_kind
from .._compressor import Compressor, PyTree
from .._select import map_with_path
from .._signatures import name_defaults
from ..numerics import cond
from ..prune.schedules import Trigger, as_trigger, check_sparsity, share_at
from ..prune.scores import as_running
from ..prune.scores._immediate import refuse_nan
from ._groups import Groups, check_groups
from ._params import mask_leaf
from ._plan import Plan, PlanError
from ._select import keep_highest, protected_groups
from .rankings import Ranking, relative
from .scores import ChannelScore, Scores, check_scores, l2


class StructuredState(NamedTuple):
    """State of ``structured_pruning``."""

    count: jax.Array  # int32 []: updates so far; with a Trigger, redraws so far
    masks: dict[str, jax.Array]  # bool [size] by group, true for channels that stay
    trigger: PyTree  # state of a Trigger


@name_defaults
def structured_pruning(
    groups: Groups,
    sparsity: float | optax.Schedule,
    *,
    score: ChannelScore = l2,
    ranking: Ranking = relative,
    every: int | Trigger = 1,
    round_to: int = 1,
    keep: int = 1,
    protect: Iterable[str] = (),
) -> Compressor:
    """Prune channels during training: one mask for each group, the lowest scores first.

    The network trains at full size with the pruned channels at zero. Afterward
    ``plan_of(groups, state)`` says what is left, and ``slice_params`` and ``shrink`` make
    the network small.

    Args:
      groups: the result of ``jc.trace_axes``, for the same parameters.
      sparsity: fraction of all channels of all groups to prune, in [0, 1), or an optax
        schedule of it over the number of updates.
      score: how important a channel is, such as ``structured.scores.l2`` or ``taylor``.
      ranking: how channels of different groups compare.
      every: number of updates between redraws of the masks, or a ``Trigger``.
      round_to: widths stay multiples of this.
      keep: number of channels that every group keeps at least. This and ``round_to`` win
        over ``sparsity``.
      protect: globs of leaves, whose groups are not pruned, or of groups, by name.

    Raises:
      ValueError: if the sparsity is outside [0, 1); in ``init``, if the parameters are not
        those of the groups.
      TypeError: in ``update``, if extras that the score needs are missing.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {
      ...     "a": {"kernel": jax.random.normal(jax.random.key(0), (3, 8))},
      ...     "b": {"kernel": jax.random.normal(jax.random.key(1), (8, 2))},
      ... }
      >>> def fn(params, x):
      ...     return jnp.maximum(x @ params["a"]["kernel"], 0) @ params["b"]["kernel"]
      >>> groups = jc.trace_axes(fn, params, jnp.ones((4, 3)))
      >>> pruner = jc.structured.structured_pruning(groups, 0.25)
      >>> jc.structured.plan_of(groups, pruner.init(params)).widths
      {'a/kernel': (3, 6), 'b/kernel': (6, 2)}
    """
    check_groups(groups, "structured_pruning(groups, sparsity)")
    if not callable(sparsity):
        check_sparsity(sparsity)
    check_counts(round_to=round_to, keep=keep)
    protected = protected_groups(groups, protect)
    names = [name for name in groups.prunable if name not in protected]
    if not names:
        raise PlanError("no group is left to prune: see the printed groups")
    running = as_running(
        functools.update_wrapper(functools.partial(score, groups), score)
    )
    trigger = as_trigger(every)
    schedule = sparsity if callable(sparsity) else lambda count: sparsity
    total = sum(groups[name].size for name in names)

    def draw(scores: Scores, share: jax.Array, masks: Mapping[str, Any]) -> Any:
        known = check_scores(groups, scores)
        ranks = ranking(groups, {name: known[name] for name in names if name in known})
        count = jnp.round(share * total).astype(jnp.int32)
        kept = keep_highest(ranks, count, round_to=round_to, keep=keep)
        return {**masks, **kept}

    def init(params: PyTree) -> StructuredState:
        groups.check(params)
        refuse_nan(params)
        count = jnp.zeros((), jnp.int32)
        masks = {name: jnp.ones(groups[name].size, bool) for name in names}
        if running.immediate:
            share = share_at(schedule, count, "sparsity")
            masks = draw(running.read(params, ()), share, masks)
        return StructuredState(count, masks, trigger.init())

    def apply(params: PyTree, state: StructuredState) -> PyTree:
        masks = leaf_masks(groups, state.masks)
        return map_with_path(
            lambda path, leaf: mask_leaf(leaf, masks[path]) if path in masks else leaf,
            params,
        )

    def update(
        params: PyTree, state: StructuredState, **extras: Any
    ) -> tuple[PyTree, StructuredState]:
        params = apply(params, state)
        refuse_nan(params)
        memory = running.add(params, (), **extras)
        next_count = state.count + 1
        due, fired = trigger.fire(state.trigger, **{**extras, "count": next_count})
        counts = due.astype(jnp.int32) if trigger.counts_redraws else 1
        count = state.count + counts
        share = share_at(schedule, count, "sparsity")
        masks = cond(
            due & ~jnp.isnan(share),
            lambda: draw(running.read(params, memory, **extras), share, state.masks),
            lambda: state.masks,
        )
        return params, StructuredState(count, masks, fired)

    return Compressor(init=init, apply=apply, update=update)


def plan_of(groups: Groups, state: StructuredState) -> Plan:
    """Return the plan that ``structured_pruning`` has come to.

    Args:
      groups: the groups that it was made with.
      state: its state; in a chain, that of its stage.

    Raises:
      TypeError: if the arguments are swapped, or the state is that of something else.
    """
    call = "plan_of(groups, state)"
    check_groups(groups, call)
    check_kind(state, StructuredState, call, "the state of structured_pruning")
    return groups.plan(jax.device_get(state.masks))


def leaf_masks(
    groups: Groups, masks: Mapping[str, jax.Array]
) -> dict[str, dict[int, jax.Array]]:
    """Return a mask for every axis of every leaf: ``{leaf: {axis: bool [n]}}``."""
    result: dict[str, dict[int, jax.Array]] = {}
    for name, mask in masks.items():
        for member in groups[name].members:
            # Indices of no channel are -1, the last entry: they are kept.
            own = jnp.append(mask, True)[member.index]
            axes = result.setdefault(member.leaf, {})
            axes[member.axis] = axes[member.axis] & own if member.axis in axes else own
    return result
