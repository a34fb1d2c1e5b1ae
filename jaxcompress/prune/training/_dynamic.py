# SPDX-License-Identifier: Apache-2.0
"""Dynamic sparse training: constant sparsity, with weights dropped and others grown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ..._arguments import check_key, check_whole
from ..._combine import masked
from ..._compressor import Active, Compressor, PyTree
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ...numerics import cond, smallest
from .._prune import prune
from ..budgets._sparsity import Budget, erk
from ..schedules import share_at
from ..scores._immediate import check_extras, random, refuse_nan
from ..treatments import keep

Grow = Callable[..., PyTree]
"""``(params, key, **extras) -> scores``. The highest-scoring weights are grown. Required
extras are keyword-only arguments, as in a ``Score``."""


class DynamicState(NamedTuple):
    """State of ``dynamic_sparse`` and the compressors built on it."""

    count: jax.Array  # int32 []: updates so far
    kept: Active

    @property
    def masks(self) -> PyTree:
        """Bool arrays shaped like the parameters, True where the weight is kept."""
        return self.kept.masks


def grow_by_gradient(
    params: PyTree, key: jax.Array, *, grads: PyTree, **extras: Any
) -> PyTree:
    """Grow where ``|g|`` is largest, so that the loss falls fastest: RigL."""
    del params, key, extras
    return jax.tree.map(jnp.abs, grads)


def grow_at_random(params: PyTree, key: jax.Array, **extras: Any) -> PyTree:
    """Grow uniformly at random: SET."""
    del extras
    return random(key)(params)


@name_defaults
def dynamic_sparse(
    sparsity: float,
    *,
    grow: Grow,
    key: jax.Array,
    until: int,
    drop: float | optax.Schedule = 0.3,
    every: int = 100,
    budget: Budget = erk,
) -> Compressor:
    """Train at constant sparsity: periodically drop small weights and grow others.

    Use it with your own growth rule; ``rigl`` and ``set_training`` are the standard
    ones. Training starts from random masks. Every ``every`` updates, the smallest
    weights of each leaf are dropped and the same number are grown elsewhere. Grown
    weights start from zero, with fresh momentum (``train_step`` resets it for any
    optimizer). No optimizer step is skipped.

    Args:
      sparsity: fraction of the weights that are zero, in [0, 1); may be traced.
      grow: which weights to grow: ``grow_by_gradient``, ``grow_at_random`` or your own.
      key: PRNG key for the first masks and for random growth.
      until: last update at which masks may change, for example three quarters of the
        training; at least ``every``, or 0 for constant masks.
      drop: fraction of the kept weights to exchange, annealed to zero at ``until`` by a
        cosine; or your own schedule.
      every: number of updates between changes.
      budget: how the sparsity is divided among the leaves; it sees random scores.

    Raises:
      ValueError: if a number is out of range, or, outside of jit, if weights are NaN.
      TypeError: in ``update``, if extras that ``grow`` needs are missing.
    """
    check_whole(every=every, until=until)
    check_key(key)
    if every < 1 or until < 0:
        raise ValueError(
            "every must be at least 1 and until at least 0, got "
            f"every={every}, until={until}."
        )
    if 0 < until < every:
        raise ValueError(
            f"until must be at least every, or 0 for constant masks, got until={until}, "
            f"every={every}. For constant masks you can also use static_sparse."
        )
    if not callable(drop) and not 0 <= drop <= 1:
        raise ValueError(
            f"drop must be in [0, 1] or an optax schedule, got drop={drop}."
        )
    drop_schedule = (
        drop if callable(drop) else optax.cosine_decay_schedule(drop, max(until, 1))
    )
    initial_pruner = prune(sparsity, score=random(key), budget=budget)

    def init(params: PyTree) -> DynamicState:
        refuse_nan(params)
        masks = initial_pruner.init(params).masks
        return DynamicState(jnp.zeros((), jnp.int32), Active(masks))

    def apply(params: PyTree, state: DynamicState) -> PyTree:
        return jax.tree.map(keep, params, state.masks)

    def update(
        params: PyTree, state: DynamicState, **extras: Any
    ) -> tuple[PyTree, DynamicState]:
        check_extras(grow, extras)
        count = state.count + 1
        params = apply(params, state)  # grown weights start at zero
        refuse_nan(params)

        amount = share_at(drop_schedule, count, "drop")

        def redraw() -> PyTree:
            scores = grow(params, jax.random.fold_in(key, count), **extras)
            return jax.tree.map(
                lambda p, m, s: _drop_and_grow(p, m, s, amount),
                params,
                state.masks,
                scores,
            )

        due = (count % every == 0) & (count <= until) & ~jnp.isnan(amount)
        masks = cond(due, redraw, lambda: state.masks)
        return params, DynamicState(count, Active(masks))

    return Compressor(init=init, apply=apply, update=update)


@name_defaults
def rigl(
    sparsity: float,
    *,
    key: jax.Array,
    until: int,
    drop: float | optax.Schedule = 0.3,
    every: int = 100,
    budget: Budget = erk,
    where: Where = is_weight,
) -> Compressor:
    """Train at constant sparsity with RigL: drop small weights, grow by gradient magnitude.

    A good default for training a sparse network from scratch.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key for the first masks.
      until: last update at which masks may change.
      drop: fraction of the kept weights to exchange, annealed by a cosine.
      every: number of updates between changes.
      budget: how the sparsity is divided among the leaves.
      where: which leaves.

    Raises:
      ValueError, TypeError: see ``dynamic_sparse`` and ``masked``.

    Example:
      >>> import jax, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (10, 10))}
      >>> pruner = jc.rigl(0.9, key=jax.random.key(1), until=1000, every=1)
      >>> state = pruner.init(params)
      >>> _, after = pruner.update(params, state, grads=params)
      >>> exchanged = state.masks["kernel"] & ~after.masks["kernel"]
      >>> int(exchanged.sum()), int(after.masks["kernel"].sum())
      (3, 10)

    References:
      Evci et al., 2020, https://arxiv.org/abs/1911.11134
    """
    compressor = dynamic_sparse(
        sparsity, grow=grow_by_gradient, key=key, until=until, drop=drop, every=every,
        budget=budget,
    )  # fmt: skip
    return masked(compressor, where)


@name_defaults
def set_training(
    sparsity: float,
    *,
    key: jax.Array,
    until: int,
    drop: float | optax.Schedule = 0.3,
    every: int = 100,
    budget: Budget = erk,
    where: Where = is_weight,
) -> Compressor:
    """Train at constant sparsity with SET: drop small weights, grow others at random.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key for the first masks and for growth.
      until: last update at which masks may change.
      drop: fraction of the kept weights to exchange, annealed by a cosine. In the paper
        it is constant: ``lambda count: 0.3``.
      every: number of updates between changes.
      budget: how the sparsity is divided among the leaves.
      where: which leaves.

    Raises:
      ValueError: see ``dynamic_sparse`` and ``masked``.

    References:
      Mocanu et al., 2018, https://arxiv.org/abs/1707.04780
    """
    compressor = dynamic_sparse(
        sparsity, grow=grow_at_random, key=key, until=until, drop=drop, every=every,
        budget=budget,
    )  # fmt: skip
    return masked(compressor, where)


@name_defaults
def static_sparse(
    sparsity: float,
    *,
    key: jax.Array,
    budget: Budget = erk,
    where: Where = is_weight,
) -> Compressor:
    """Train with random masks that never change: the baseline for sparse training.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key for the masks.
      budget: how the sparsity is divided among the leaves.
      where: which leaves.

    Raises:
      ValueError: see ``dynamic_sparse`` and ``masked``.
    """
    compressor = prune(sparsity, score=random(key), budget=budget, every=_NEVER)
    return masked(compressor, where)


_NEVER = 2**31 - 1


def _drop_and_grow(
    param: jax.Array, mask: jax.Array, scores: jax.Array, amount: jax.Array
) -> jax.Array:
    """Drop the smallest fraction of the kept weights and grow as many others."""
    kept = jnp.sum(mask, dtype=jnp.uint32)
    swapped = jnp.round(amount * kept.astype(jnp.float32)).astype(jnp.uint32)
    swapped = jnp.minimum(swapped, kept)
    # NaN ranks last, behind any infinity: it marks weights that must not be picked.
    never = jnp.asarray(jnp.nan, param.dtype)
    surviving = mask & ~smallest(jnp.where(mask, jnp.abs(param), never), swapped)
    # Weights just dropped may be grown again, and then keep their values.
    highest_cost = jnp.asarray(jnp.inf, scores.dtype)
    costs = jnp.where(jnp.isnan(scores), highest_cost, -scores)
    return surviving | smallest(
        jnp.where(surviving, never.astype(costs.dtype), costs), swapped
    )
