# SPDX-License-Identifier: Apache-2.0
"""Dynamic sparse training: as sparse from the start, some weights dropped, others grown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..._combine import masked
from ..._compressor import Active, Compressor, PyTree
from ..._select import Where, is_weight
from ...numerics import smallest
from .._prune import prune
from ..budgets._sparsity import Budget, erk
from ..scores._immediate import random, refuse_nan, require
from ..treatments import keep

Grow = Callable[..., PyTree]
"""``(params, key, **extras) -> scores``, the highest of which are grown. Needs are
keyword-only arguments, as for a ``Score``."""


class DynamicState(NamedTuple):
    """State of dynamic sparse training."""

    count: jax.Array  # int32 []: updates so far
    kept: Active

    @property
    def masks(self) -> PyTree:
        """Bool arrays like the parameters, True where the weight is kept."""
        return self.kept.masks


def grow_by_gradient(
    params: PyTree, key: jax.Array, *, grads: PyTree, **extras: Any
) -> PyTree:
    """``|g|``, where the loss would fall fastest: RigL."""
    del params, key, extras
    return jax.tree.map(jnp.abs, grads)


def grow_at_random(params: PyTree, key: jax.Array, **extras: Any) -> PyTree:
    """Anywhere: SET."""
    del extras
    return random(key)(params)


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
    """Keep so many weights of every leaf all the time, but not always the same.

    Starts from random masks. Every few updates the smallest weights of each leaf are
    dropped and as many grown elsewhere, from zero and without the momentum they once had
    (``train_step`` sees to it, for any optimizer). No optimizer step is skipped.

    Args:
      sparsity: fraction of the weights that are zero, in [0, 1); may be traced.
      grow: which weights to grow (``grow_by_gradient``, ``grow_at_random``).
      key: PRNG key of the first masks, and of random growth.
      until: no change after this update, three quarters of the training for instance;
        ``every`` or more, or 0 for none.
      drop: fraction of the kept weights to exchange, annealed to zero at ``until`` by a
        cosine; or a schedule of its own.
      every: updates between two changes.
      budget: how the sparsity is spread over leaves, by random scores.

    Raises:
      ValueError: for numbers out of their range; outside of jit, for NaN weights.
      TypeError: in ``update``, if the growth needs extras that are not passed.
    """
    if every < 1 or until < 0:
        raise ValueError(f"every={every}, until={until}: 1 or more, and 0 or more.")
    if 0 < until < every:
        raise ValueError(
            f"until={until}, every={every}: nothing would ever change. For masks that "
            "stay as they are use static_sparse, or until=0."
        )
    if not callable(drop) and not 0 <= drop <= 1:
        raise ValueError(f"drop={drop} is outside [0, 1].")
    amount = (
        drop if callable(drop) else optax.cosine_decay_schedule(drop, max(until, 1))
    )
    start = prune(sparsity, score=random(key), budget=budget)

    def init(params: PyTree) -> DynamicState:
        refuse_nan(params)
        masks = start.init(params).masks
        return DynamicState(jnp.zeros((), jnp.int32), Active(masks))

    def apply(params: PyTree, state: DynamicState) -> PyTree:
        return jax.tree.map(keep, params, state.masks)

    def update(
        params: PyTree, state: DynamicState, **extras: Any
    ) -> tuple[PyTree, DynamicState]:
        require(grow, extras)
        count = state.count + 1
        params = apply(params, state)  # what is grown starts at zero
        refuse_nan(params)

        def change() -> PyTree:
            scores = grow(params, jax.random.fold_in(key, count), **extras)
            return jax.tree.map(
                lambda p, m, s: _exchange(p, m, s, jnp.asarray(amount(count))),
                params,
                state.masks,
                scores,
            )

        due = (count % every == 0) & (count <= until)
        masks = lax.cond(due, change, lambda: state.masks)
        return params, DynamicState(count, Active(masks))

    return Compressor(init=init, apply=apply, update=update)


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
    """Sparse training that drops small weights and grows where the gradient is large.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key of the first masks.
      until: no change after this update.
      drop: fraction of the kept weights to exchange; annealed by a cosine.
      every: updates between two changes.
      budget: how the sparsity is spread over leaves.
      where: which leaves.

    Raises:
      ValueError, TypeError: as ``dynamic_sparse`` and ``masked`` say.

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
    made = dynamic_sparse(
        sparsity, grow=grow_by_gradient, key=key, until=until, drop=drop, every=every,
        budget=budget,
    )  # fmt: skip
    return masked(made, where)


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
    """Sparse training that drops small weights and grows others at random.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key of the first masks and of growth.
      until: no change after this update.
      drop: fraction of the kept weights to exchange; annealed by a cosine. The paper's
        is constant: ``lambda count: 0.3``.
      every: updates between two changes.
      budget: how the sparsity is spread over leaves.
      where: which leaves.

    Raises:
      ValueError: as ``dynamic_sparse`` and ``masked`` say.

    References:
      Mocanu et al., 2018, https://arxiv.org/abs/1707.04780
    """
    made = dynamic_sparse(
        sparsity, grow=grow_at_random, key=key, until=until, drop=drop, every=every,
        budget=budget,
    )  # fmt: skip
    return masked(made, where)


def static_sparse(
    sparsity: float,
    *,
    key: jax.Array,
    budget: Budget = erk,
    where: Where = is_weight,
) -> Compressor:
    """Random masks that never change: the baseline of sparse training.

    Args:
      sparsity: fraction of the selected weights that are zero, in [0, 1).
      key: PRNG key of the masks.
      budget: how the sparsity is spread over leaves.
      where: which leaves.

    Raises:
      ValueError: as ``dynamic_sparse`` and ``masked`` say.
    """
    made = prune(sparsity, score=random(key), budget=budget, every=_NEVER)
    return masked(made, where)


_NEVER = 2**31 - 1


def _exchange(
    param: jax.Array, mask: jax.Array, scores: jax.Array, amount: jax.Array
) -> jax.Array:
    """Drop a fraction of the kept weights, the smallest, and grow as many others."""
    number = jnp.sum(mask, dtype=jnp.uint32)
    some = jnp.round(amount * number.astype(jnp.float32)).astype(jnp.uint32)
    some = jnp.minimum(some, number)
    # NaN ranks last, behind any infinity: the mark of what may not be chosen.
    never = jnp.asarray(jnp.nan, param.dtype)
    left = mask & ~smallest(jnp.where(mask, jnp.abs(param), never), some)
    # What has just been dropped may be grown again, and then keeps its value.
    worst = jnp.asarray(jnp.inf, scores.dtype)
    loss = jnp.where(jnp.isnan(scores), worst, -scores)
    return left | smallest(jnp.where(left, never.astype(loss.dtype), loss), some)
