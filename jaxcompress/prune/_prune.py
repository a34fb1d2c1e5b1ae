# SPDX-License-Identifier: Apache-2.0
"""Mask pruning: a score, a budget and a pattern combined into a compressor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from .._axes import warn_if_unmatched
from .._combine import masked
from .._compressor import Active, Compressor, PyTree
from .._origin import Origin, check_origin, make_origin
from .._select import Where, is_weight, paths_and_leaves
from .._signatures import name_defaults
from ..numerics import cond
from .budgets._sparsity import Budget, uniform
from .patterns._protocol import Pattern, unstructured
from .schedules import Trigger, as_trigger, check_sparsity, share_at
from .scores._immediate import Score, magnitude, refuse_nan, refuse_unranked
from .scores._running import Running, as_running
from .treatments import Pruned, zeroed

Schedule = optax.Schedule


class PruneState(NamedTuple):
    """State of ``prune``."""

    count: jax.Array  # int32 []: updates so far; with a Trigger, redraws so far
    kept: PyTree  # Active(masks); the bare masks if pruned weights keep training
    memory: PyTree  # state of a Running score
    trigger: PyTree  # state of a Trigger
    origin: Origin | tuple[()] = ()  # what the memory holds; () if there is none

    @property
    def masks(self) -> PyTree:
        """Bool arrays shaped like the parameters, True where the weight is kept."""
        return self.kept.masks if isinstance(self.kept, Active) else self.kept


@name_defaults
def prune(
    sparsity: float | Schedule,
    *,
    score: Score | Running = magnitude,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    pruned: Pruned = zeroed,
    every: int | Trigger = 1,
) -> Compressor:
    """Prune every leaf of a tree: zero the weights with the lowest scores.

    Use it to combine any score, budget and pattern. For magnitude pruning of the weights
    alone, use ``magnitude_pruning``; to select leaves, wrap the result in ``masked``.

    The view has exact zeros, whatever the optimizer did. New masks are drawn every
    ``every`` updates. ``zeroed`` weights score as zeros, so under ``magnitude`` none of
    them returns until the sparsity falls (kept weights that are exactly zero tie with
    them; ties go by index). ``init`` already draws masks, unless the score needs more than
    the parameters: then everything is kept until the first redraw in ``update``.

    Args:
      sparsity: fraction of the weights to prune, in [0, 1), or an optax schedule of it
        over the number of updates; may be traced. Under jit it is clipped to [0, 1], and
        NaN holds the masks.
      score: ``(params, **extras) -> scores``, or a ``Running`` score.
      budget: how the sparsity is divided among the leaves (``uniform``, ``erk``,
        ``global_``, ``owl()``, ``per_path``, ``saving``).
      pattern: which weights are pruned together (``unstructured``, ``NOfM``, ``Blocks``,
        ``Slices``, ``PerOutput``).
      pruned: how pruned weights are treated: ``zeroed`` sets them to zero, ``frozen`` keeps
        their last value, ``sr_ste()`` keeps training them.
      every: number of updates between redraws of the masks, or a ``Trigger`` such as
        ``converged()``. With a ``Trigger`` the schedule counts redraws.

    Raises:
      ValueError: if the sparsity is outside [0, 1) or above what the pattern allows, if
        ``every`` is not positive, or, outside of jit, if a schedule leaves [0, 1] or
        scores are NaN (names the leaf).
      TypeError: if a factory such as ``NOfM`` or ``sr_ste`` was passed without calling it;
        in ``update``, if extras that the score needs are missing.
    """
    check_arguments(sparsity, pattern)
    running, trigger = as_running(score), as_trigger(every)
    if not isinstance(pruned, Pruned):
        raise TypeError(
            "pruned must be zeroed, frozen, sr_ste() or another Pruned, got "
            f"{getattr(pruned, '__name__', repr(pruned))}."
        )
    schedule = sparsity if callable(sparsity) else lambda count: sparsity

    def draw(scores: PyTree, share: jax.Array) -> PyTree:
        return draw_masks(scores, share, budget, pattern)

    def init(params: PyTree) -> PruneState:
        refuse_nan(params)
        count = jnp.zeros((), jnp.int32)
        memory = running.init(params)
        if running.immediate:
            share = share_at(schedule, count, "sparsity")
            masks = draw(running.read(params, memory), share)
        else:
            masks = make_full_masks(params)
        kept = masks if pruned.trained else Active(masks)
        origin = make_origin(running.name) if jax.tree.leaves(memory) else ()
        return PruneState(count, kept, memory, trigger.init(), origin)

    def apply(params: PyTree, state: PruneState) -> PyTree:
        return jax.tree.map(pruned.view, params, state.masks)

    def update(
        params: PyTree, state: PruneState, **extras: Any
    ) -> tuple[PyTree, PruneState]:
        if state.origin:
            check_origin(state.origin, running.name)
        old = state.masks
        # Old masks, so that this fuses with the optimizer step. Newly pruned weights are
        # zero in the view at once, and in the raw parameters one update later.
        params = jax.tree.map(pruned.settle, params, old)
        refuse_nan(params)
        memory = running.add(params, state.memory, **extras)
        refuse_nan(memory)
        next_count = state.count + 1
        due, fired = trigger.fire(state.trigger, **{**extras, "count": next_count})
        if trigger.counts_redraws:
            count = state.count + due.astype(jnp.int32)
        else:
            count = next_count

        share = share_at(schedule, count, "sparsity")

        def redraw() -> PyTree:
            return draw(running.read(params, memory, **extras), share)

        masks = cond(due & ~jnp.isnan(share), redraw, lambda: old)
        kept = masks if pruned.trained else Active(masks)
        return params, PruneState(count, kept, memory, fired, state.origin)

    return Compressor(init=init, apply=apply, update=update)


@name_defaults
def magnitude_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    pruned: Pruned = zeroed,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Prune the weights with the smallest magnitudes; leave biases and norm scales alone.

    The default choice for unstructured or N:M pruning. With a number, ``init`` draws the
    masks (pruning after training). With a schedule, they grow as it rises (gradual
    pruning). ``dense(finalize(p, s))`` equals ``apply(p, s)``, and both have exact zeros.

    Args:
      sparsity: fraction of the selected weights to prune, in [0, 1), or an optax
        schedule of it, such as ``prune.schedules.cubic(0.9, end=steps)``.
      budget: how the sparsity is divided among the leaves: ``prune.budgets.uniform`` (the
        same fraction of each leaf), ``prune.budgets.erk``, ``prune.budgets.global_`` and
        others.
      pattern: which weights are pruned together: ``prune.patterns.unstructured``,
        ``prune.patterns.NOfM(2, 4)`` and others.
      pruned: how pruned weights are treated: ``prune.treatments.zeroed`` sets them to zero,
        ``prune.treatments.sr_ste()`` keeps training them.
      every: number of updates between redraws of the masks, or a
        ``prune.schedules.Trigger``. Between redraws, holding a mask costs one ``where``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if the sparsity is outside [0, 1) or above the pattern's limit, or
        ``every`` is below 1; in ``init``, if ``where`` selects nothing.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (10, 10))}
      >>> pruner = jc.magnitude_pruning(0.9)
      >>> int((jc.compress(pruner, params)["kernel"] != 0).sum())
      10

    References:
      Han et al., 2015, https://arxiv.org/abs/1506.02626; Zhu and Gupta, 2017,
      https://arxiv.org/abs/1710.01878
    """
    pruner = prune(sparsity, budget=budget, pattern=pattern, pruned=pruned, every=every)
    return masked(pruner, where)


def draw_masks(
    scores: PyTree, sparsity: Any, budget: Budget, pattern: Pattern
) -> PyTree:
    """Turn scores into masks: the budget counts, the pattern picks. True means kept.

    Raises:
      TypeError: if the scores are not arrays that can be ranked, or the budget does not
        return a dict.
    """
    paths, leaves, treedef = paths_and_leaves(scores)
    for leaf in leaves:
        if not hasattr(leaf, "dtype"):
            raise TypeError(
                "the score must return a tree of arrays shaped like the parameters, got "
                f"the leaf {leaf!r}."
            )
    refuse_unranked(scores)
    refuse_nan(scores)
    warn_if_unmatched(getattr(pattern, "axes", None), paths)
    # If the pattern has groups, budgets rank groups, not single weights.
    group_scores = getattr(pattern, "spread", lambda path, scores: scores)
    ranked_scores = {p: group_scores(p, x) for p, x in zip(paths, leaves, strict=True)}
    counts = budget(ranked_scores, jnp.asarray(sparsity, jnp.float32))
    if not isinstance(counts, Mapping):
        raise TypeError(
            f"the budget must return a dict of counts by path, got {counts!r}. A function "
            "that makes a budget has to be called first: budget=owl(), not owl."
        )
    return treedef.unflatten(
        [pattern(p, x, counts[p]) for p, x in zip(paths, leaves, strict=True)]
    )


def make_full_masks(params: PyTree) -> PyTree:
    """Make masks that are True everywhere, with the sharding of the leaves."""
    # A constant has no sharding. The barrier hides from XLA that this is a constant.
    true = lax.optimization_barrier(jnp.ones((), bool))
    return jax.tree.map(lambda p: jnp.isnan(p) | true, params)


def check_arguments(sparsity: float | Schedule, pattern: Pattern | None) -> None:
    """Refuse an invalid ``sparsity`` or ``pattern``."""
    if isinstance(pattern, type):
        raise TypeError(
            "pattern must be an instance such as NOfM(2, 4), got the class "
            f"{pattern.__name__}. Call it."
        )
    if pattern is not None and not callable(pattern):
        raise TypeError(
            "pattern must be unstructured, NOfM(2, 4) or another pattern, got "
            f"{pattern!r}."
        )
    if callable(sparsity):
        return
    if sparsity is None or isinstance(sparsity, str):
        raise TypeError(
            f"sparsity must be a number or an optax schedule, got {sparsity!r}."
        )
    check_sparsity(sparsity)
    if isinstance(sparsity, Tracer):
        return
    limit = getattr(pattern, "max_sparsity", 1.0)
    if sparsity > limit:
        raise ValueError(
            f"sparsity must be at most {limit:g} with {pattern}, got {sparsity}."
        )
