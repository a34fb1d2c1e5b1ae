# SPDX-License-Identifier: Apache-2.0
"""Pruning by masks: the compressor made of a score, a budget and a pattern."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.core import Tracer

from .._combine import masked
from .._compressor import Compressor, PyTree
from .._select import Where, is_weight, paths_and_leaves
from ._budgets import Budget, uniform
from ._patterns import NOfM, Pattern, unstructured
from ._scores import Score, magnitude

Schedule = optax.Schedule


class PruneState(NamedTuple):
    """State of a pruner."""

    count: jax.Array  # int32 []: updates so far
    masks: PyTree  # bool, like params; True where the weight is kept


def prune(
    sparsity: float | Schedule,
    *,
    score: Score = magnitude,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    every: int = 1,
) -> Compressor:
    """Zero the weights with the lowest scores, in every leaf of the tree.

    ``update`` sets pruned weights to zero and, every few steps, draws new masks; a
    pruned weight stays pruned while the sparsity does not fall. The view has exact zeros
    whatever the optimizer did, and pruned weights get no gradient.

    Args:
      sparsity: fraction of the weights to prune, in [0, 1), or an optax schedule of it
        over the number of updates.
      score: ``(params, **extras) -> scores``.
      budget: how the sparsity is spread over leaves (``uniform``, ``erk``, ``global_``).
      pattern: which weights go together (``unstructured``, ``NOfM``).
      every: updates between two redrawings of the masks.

    Raises:
      ValueError: if the sparsity is outside [0, 1) or beyond what the pattern allows, or
        ``every`` is not positive.
    """
    _check(sparsity, pattern, every)
    schedule = sparsity if callable(sparsity) else lambda count: sparsity

    def draw(params: PyTree, count: jax.Array, **extras: Any) -> PyTree:
        paths, scores, treedef = paths_and_leaves(score(params, **extras))
        counts = budget(scores, jnp.asarray(schedule(count), jnp.float32))
        return treedef.unflatten(map(pattern, paths, scores, counts))

    def init(params: PyTree) -> PruneState:
        count = jnp.zeros((), jnp.int32)
        return PruneState(count=count, masks=draw(params, count))

    def apply(params: PyTree, state: PruneState) -> PyTree:
        return jax.tree.map(_keep, params, state.masks)

    def update(
        params: PyTree, state: PruneState, **extras: Any
    ) -> tuple[PyTree, PruneState]:
        count = state.count + 1
        masks = lax.cond(
            count % every == 0,
            # Pruned weights are zero when they are scored, so they rank lowest again.
            lambda: draw(apply(params, state), count, **extras),
            lambda: state.masks,
        )
        # Both masks in one pass: a weight that a falling sparsity revives starts at zero.
        params = jax.tree.map(
            lambda p, old, new: _keep(p, old & new), params, state.masks, masks
        )
        return params, PruneState(count=count, masks=masks)

    return Compressor(init=init, apply=apply, update=update)


def magnitude_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = uniform,
    pattern: Pattern = unstructured,
    every: int = 1,
    where: Where = is_weight,
) -> Compressor:
    """Zero the smallest weights; biases and norm scales are left alone.

    ``dense(finalize(p, s))`` equals ``apply(p, s)``, and both have exact zeros. With a
    number the masks are drawn in ``init`` (pruning after training); with a schedule they
    grow as it rises (gradual pruning).

    Args:
      sparsity: fraction of the selected weights to prune, in [0, 1), or an optax
        schedule of it, such as ``optax.polynomial_schedule(0.0, 0.9, 3, steps)``, whose
        cubic ramp prunes fast while much is redundant.
      budget: ``prune.uniform`` (the same fraction of each leaf), ``prune.erk`` or
        ``prune.global_``.
      pattern: ``prune.unstructured``, or ``prune.NOfM(2, 4)``.
      every: updates between two redrawings of the masks; between them holding a mask
        costs one ``where``.
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
    return masked(prune(sparsity, budget=budget, pattern=pattern, every=every), where)


def _keep(param: jax.Array, mask: jax.Array) -> jax.Array:
    # `where` and not a product: a NaN under the mask must not come through.
    return jnp.where(mask, param, jnp.zeros((), param.dtype))


def _check(sparsity: float | Schedule, pattern: Pattern, every: int) -> None:
    if every < 1:
        raise ValueError(f"every={every}: masks are redrawn every 1 or more updates.")
    if callable(sparsity) or isinstance(sparsity, Tracer):
        return
    if isinstance(sparsity, str):
        raise TypeError(
            f"sparsity={sparsity!r} is a text; pass a number or a schedule."
        )
    if not 0 <= sparsity < 1:
        hint = f" Did you mean {sparsity / 100:g}?" if 1 < sparsity < 100 else ""
        raise ValueError(f"sparsity={sparsity} is outside [0, 1).{hint}")
    if isinstance(pattern, NOfM) and sparsity > pattern.max_sparsity:
        raise ValueError(
            f"sparsity={sparsity}: {pattern.n} of {pattern.m} reaches "
            f"{pattern.max_sparsity:g} at most."
        )
