# SPDX-License-Identifier: Apache-2.0
"""Pruning by masks: the compressor made of a score, a budget and a pattern."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from .._combine import masked
from .._compressor import Active, Compressor, PyTree
from .._select import Where, is_weight, paths_and_leaves
from .budgets._sparsity import Budget, uniform
from .patterns._protocol import Pattern, unstructured
from .schedules import Trigger, check_sparsity
from .scores._immediate import Score, check_score, magnitude, needs, refuse_nan, require
from .scores._running import Running
from .treatments import Pruned, zeroed

Schedule = optax.Schedule


class PruneState(NamedTuple):
    """State of a pruner."""

    count: jax.Array  # int32 []: updates so far; redrawings where a Trigger decides
    kept: PyTree  # Active(masks), or the masks where pruned weights are trained on
    memory: PyTree  # of a running score
    trigger: PyTree  # state of the trigger

    @property
    def masks(self) -> PyTree:
        """Bool arrays like the parameters, True where the weight is kept."""
        return self.kept.masks if isinstance(self.kept, Active) else self.kept


def prune(
    sparsity: float | Schedule,
    *,
    score: Score | Running = magnitude,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    pruned: Pruned = zeroed,
    every: int | Trigger = 1,
) -> Compressor:
    """Zero the weights with the lowest scores, in every leaf of the tree.

    The view has exact zeros whatever the optimizer did. Every few updates new masks are
    drawn. Where pruned weights are ``zeroed`` they are scored as zeros: by magnitude none
    comes back while the sparsity does not fall (kept weights that are exactly zero tie
    with them, by index). ``init`` draws masks already, unless the score needs more than
    parameters: then everything is kept until the first drawing in ``update``.

    Args:
      sparsity: fraction of the weights to prune, in [0, 1), or an optax schedule of it
        over the number of updates; may be traced.
      score: ``(params, **extras) -> scores``, or a ``Running`` one.
      budget: how the sparsity is spread over leaves (``uniform``, ``erk``, ``global_``,
        ``owl()``, ``per_path``, ``saving``).
      pattern: which weights go together (``unstructured``, ``NOfM``, ``Blocks``,
        ``Slices``, ``PerOutput``).
      pruned: what becomes of pruned weights (``zeroed``, ``frozen``,
        ``straight_through()``).
      every: updates between two redrawings of the masks; or a ``Trigger``, such as
        ``converged``, which makes the schedule one of redrawings.

    Raises:
      ValueError: if the sparsity is outside [0, 1) or beyond what the pattern allows, or
        ``every`` is not positive; outside of jit, for NaN scores, naming the leaf.
      TypeError: for a function that was to be called first; in ``update``, if the score
        needs extras that are not passed.
    """
    check(sparsity, pattern, every)
    if not isinstance(score, Running):
        check_score(score)
    if not isinstance(pruned, Pruned):
        raise TypeError(
            f"pruned={getattr(pruned, '__name__', pruned)} does not say what becomes of "
            "pruned weights: give zeroed, frozen or straight_through()."
        )
    schedule = sparsity if callable(sparsity) else lambda count: sparsity
    at_once = not isinstance(score, Running) and not needs(score)

    def draw(scores: PyTree, count: jax.Array) -> PyTree:
        return draw_masks(scores, schedule(count), budget, pattern)

    def init(params: PyTree) -> PruneState:
        count = jnp.zeros((), jnp.int32)
        memory = score.init(params) if isinstance(score, Running) else ()
        masks = draw(score(params), count) if at_once else all_kept(params)  # pyright: ignore[reportCallIssue]
        kept = masks if pruned.trained else Active(masks)
        trigger = every.init() if isinstance(every, Trigger) else ()
        return PruneState(count, kept, memory, trigger)

    def apply(params: PyTree, state: PruneState) -> PyTree:
        return jax.tree.map(pruned.view, params, state.masks)

    def update(
        params: PyTree, state: PruneState, **extras: Any
    ) -> tuple[PyTree, PruneState]:
        old = state.masks
        # With the masks of before, so that it fuses with the optimizer. What this
        # update prunes is zero in the view at once, and in the raw parameters an update
        # later.
        params = jax.tree.map(pruned.settle, params, old)
        refuse_nan(params)  # here, since inside of the cond nothing is known
        memory, count, trigger = state.memory, state.count + 1, state.trigger
        if isinstance(score, Running):
            memory = score.add(params, memory, **extras)
            refuse_nan(memory)
        else:
            require(score, extras)
            for name in needs(score):
                refuse_nan(extras[name])
        if isinstance(every, Trigger):
            due, trigger = every.fire(trigger, **extras)
            count = state.count + due.astype(jnp.int32)
        else:
            due = count % every == 0

        def redraw() -> PyTree:
            if isinstance(score, Running):
                return draw(score.read(params, memory), count)
            return draw(score(params, **extras), count)

        masks = lax.cond(due, redraw, lambda: old)
        kept = masks if pruned.trained else Active(masks)
        return params, PruneState(count, kept, memory, trigger)

    return Compressor(init=init, apply=apply, update=update)


def magnitude_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    pruned: Pruned = zeroed,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Zero the smallest weights; biases and norm scales are left alone.

    ``dense(finalize(p, s))`` equals ``apply(p, s)``, and both have exact zeros. With a
    number the masks are drawn in ``init`` (pruning after training); with a schedule they
    grow as it rises (gradual pruning).

    Args:
      sparsity: fraction of the selected weights to prune, in [0, 1), or an optax
        schedule of it, such as ``prune.schedules.cubic(0.9, end=steps)``.
      budget: ``prune.budgets.uniform`` (the same fraction of each leaf), ``prune.budgets.erk``,
        ``prune.budgets.global_`` and others.
      pattern: ``prune.patterns.unstructured``, ``prune.patterns.NOfM(2, 4)`` and others.
      pruned: what becomes of pruned weights: ``prune.treatments.zeroed``, or
        ``prune.treatments.sr_ste()`` to train them on.
      every: updates between two redrawings of the masks, or a ``prune.schedules.Trigger``; between
        them holding a mask costs one ``where``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for a sparsity outside [0, 1) or beyond the pattern's, or an ``every``
        below 1; and in ``init``, if ``where`` selects nothing.

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
    """The masks that a budget and a pattern make of scores; True where kept.

    Raises:
      TypeError: for scores that are no arrays, or counts that are no dict.
    """
    paths, leaves, treedef = paths_and_leaves(scores)
    for leaf in leaves:
        if not hasattr(leaf, "dtype"):
            raise TypeError(
                f"the score returned {leaf!r} and no tree of arrays like the parameters."
            )
    refuse_nan(scores)
    # Budgets rank groups where the pattern has them.
    spread = getattr(pattern, "spread", lambda path, scores: scores)
    ranked = {p: spread(p, x) for p, x in zip(paths, leaves, strict=True)}
    counts = budget(ranked, jnp.asarray(sparsity, jnp.float32))
    if not isinstance(counts, Mapping):
        raise TypeError(
            f"the budget returned {counts!r} and no counts by path. Is it a function that "
            "makes a budget, as owl() does?"
        )
    return treedef.unflatten(
        [pattern(p, x, counts[p]) for p, x in zip(paths, leaves, strict=True)]
    )


def all_kept(params: PyTree) -> PyTree:
    """Masks that are True everywhere, with the sharding of the leaves."""
    # A constant would have no sharding; behind the barrier XLA cannot tell it is one.
    true = lax.optimization_barrier(jnp.ones((), bool))
    return jax.tree.map(lambda p: jnp.isnan(p) | true, params)


def check(
    sparsity: float | Schedule, pattern: Pattern | None, every: int | Trigger = 1
) -> None:
    """Refuse arguments of a pruner that cannot be meant."""
    if isinstance(pattern, type):
        raise TypeError(
            f"pattern={pattern.__name__} is a class: call it, as NOfM(2, 4)."
        )
    if not isinstance(every, int | Trigger) or isinstance(every, bool):
        raise TypeError(
            f"every={every!r} is neither a whole number nor a Trigger, such as "
            "converged(patience=100)."
        )
    if isinstance(every, int) and every < 1:
        raise ValueError(f"every={every}: masks are redrawn every 1 or more updates.")
    if callable(sparsity):
        return
    if isinstance(sparsity, str):
        raise TypeError(
            f"sparsity={sparsity!r} is a text; pass a number or a schedule."
        )
    check_sparsity(sparsity)
    if isinstance(sparsity, Tracer):
        return
    most = getattr(pattern, "max_sparsity", 1.0)
    if sparsity > most:
        raise ValueError(f"sparsity={sparsity}: {pattern} reaches {most:g} at most.")
