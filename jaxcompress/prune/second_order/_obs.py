# SPDX-License-Identifier: Apache-2.0
"""Optimal Brain Surgeon for one layer: which weights to remove, and how the others move.

A layer is a matrix ``w`` of ``(features, outputs)``; ``h`` is ``X^T X`` of its input rows,
``(features, features)``. The loss is the squared change of the layer's outputs, half of
``trace((v - w)^T h (v - w))``, so each output is a separate problem. The functions take
one matrix; map them over several with ``jax.vmap``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...numerics import EXACT, damped, inverse_hessian, smallest


@jax.jit
def obs_scores(
    w: jax.Array, h: jax.Array, damping: float | jax.Array = 0.01
) -> jax.Array:
    """Score each weight by the loss increase when it is removed and the others adjust.

    ``w_i^2 / (2 [H^-1]_ii)``; zero for the weights of dead features, which have no effect.

    Args:
      w: float (features, outputs).
      h: float (features, features).
      damping: see ``inverse_hessian``.

    Returns:
      float32 (features, outputs).

    References:
      Hassibi and Stork, 1992, "Second order derivatives for network pruning: Optimal
      Brain Surgeon"

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
      >>> scores = obs_scores(jnp.array([[4.0], [3.0]]), x.T @ x, 0.0)
      >>> [f"{score:.2f}" for score in scores.ravel().tolist()]
      ['10.67', '18.00']
    """
    _, live = damped(h, damping)
    diagonal = jnp.diagonal(inverse_hessian(h, damping))
    scores = w.astype(jnp.float32) ** 2 / (2 * diagonal[:, None])
    return jnp.where(live[:, None], scores, 0)


@functools.partial(jax.jit, static_argnames="batch_size")
def reconstruct(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array,
    damping: float | jax.Array = 0.01,
    *,
    batch_size: int = 16,
) -> jax.Array:
    """Refit the weights that a mask keeps, by least squares on the outputs of the layer.

    Exact: one Cholesky solve per output. If the mask keeps everything, the weights come
    back bit for bit.

    Args:
      w: float (features, outputs).
      h: float (features, features).
      keep: bool (features, outputs).
      damping: see ``inverse_hessian``; it pulls the result toward ``w``.
      batch_size: outputs solved at once; each needs memory for a matrix like ``h``.

    Returns:
      Array like ``w``, zero where ``keep`` is False.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 1.0], [1.0, 1.0], [0.0, 2.0]])
      >>> w, keep = jnp.array([[4.0], [3.0]]), jnp.array([[False], [True]])
      >>> [f"{v:.2f}" for v in reconstruct(w, x.T @ x, keep, 0.0).ravel().tolist()]
      ['0.00', '4.33']
    """
    h, _ = damped(h, damping)

    def column(weights: jax.Array, kept: jax.Array) -> jax.Array:
        both = kept[:, None] & kept[None, :]
        # Ones on the diagonal of removed weights: they solve to zero and affect no other.
        matrix = jnp.where(both, h, 0) + jnp.diag(jnp.where(kept, 0.0, 1.0))
        removed = jnp.where(kept, 0, weights)
        push = jnp.where(kept, jnp.matmul(h, removed, precision=EXACT), 0)
        factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
        moved = weights + jax.scipy.linalg.cho_solve(factor, push)
        return jnp.where(kept, moved, 0)

    new = _of_each(column, (w.astype(jnp.float32).T, keep.T), batch_size)
    return new.T.astype(w.dtype)


@functools.partial(jax.jit, static_argnames="batch_size")
def optimal_brain_surgeon(
    w: jax.Array,
    h: jax.Array,
    count: jax.Array | int,
    damping: float | jax.Array = 0.01,
    *,
    batch_size: int = 16,
) -> tuple[jax.Array, jax.Array]:
    """Remove weights one by one, always the cheapest, and adjust the others after each.

    Exact and greedy. Every output is first pruned completely, in ``features`` steps over
    a matrix like ``h``. The ``count`` smallest losses of all these removals then decide
    how many weights each output loses.

    Args:
      w: float (features, outputs).
      h: float (features, features).
      count: how many weights to remove, traced or not.
      damping: see ``inverse_hessian``.
      batch_size: outputs processed at once; each needs memory for a matrix like ``h``.

    Returns:
      Weights like ``w``, with exact zeros, and the mask of kept weights, bool
      (features, outputs).

    References:
      Hassibi and Stork, 1992; Frantar and Alistarh, 2022, "Optimal Brain Compression",
      https://arxiv.org/abs/2208.11580

    Example:
      >>> import jax, jax.numpy as jnp
      >>> x = jax.random.normal(jax.random.key(0), (64, 8))
      >>> w, keep = optimal_brain_surgeon(jnp.ones((8, 3)), x.T @ x, 12)
      >>> int((w == 0).sum()), int(keep.sum())
      (12, 12)
    """
    inverse = inverse_hessian(h, damping)
    live = damped(h, damping)[1]
    # Weights of dead features go first, for nothing.
    columns = jnp.where(live[:, None], w.astype(jnp.float32), 0).T
    steps, losses = _of_each(
        lambda column: _trajectory(column, inverse), (columns,), batch_size
    )
    gone = jnp.sum(smallest(losses, count), axis=1)
    keep = (steps >= gone[:, None]).T
    # The weights of any point of a trajectory follow from its mask alone.
    return reconstruct(w, h, keep, damping, batch_size=batch_size), keep


def _of_each(
    fn: Callable[..., Any], columns: tuple[jax.Array, ...], batch_size: int
) -> Any:
    """A function of one output for all of them, so many at once that memory is bounded.

    Args:
      fn: ``*column -> tree``.
      columns: arrays (outputs, ...).
      batch_size: outputs at once.
    """
    outputs = len(columns[0])
    if outputs <= batch_size:
        return jax.vmap(fn)(*columns)
    # Filled up, where `lax.map` would compile a second program for the rest.
    batches = -(-outputs // batch_size)
    rows = jnp.arange(batches * batch_size).reshape(batches, batch_size) % outputs
    found = lax.map(lambda at: jax.vmap(fn)(*(x[at] for x in columns)), rows)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:outputs], found)


def _trajectory(w: jax.Array, inverse: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Remove all weights of one output, greedily.

    Args:
      w: float32 (features,).
      inverse: float32 (features, features), of the Hessian.

    Returns:
      int32 (features,): the step at which each weight goes. And float32 (features,): by
      how much each step raises the loss.
    """
    indices = jnp.arange(len(w))

    def step(
        carry: tuple[jax.Array, jax.Array, jax.Array], _: None
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
        w, inverse, there = carry
        # What is left of the diagonal is positive but for rounding.
        diagonal = jnp.maximum(jnp.diagonal(inverse), jnp.finfo(w.dtype).tiny)
        scores = jnp.where(there, w**2 / (2 * diagonal), jnp.inf)
        chosen = jnp.argmin(scores)
        column = inverse[:, chosen] / diagonal[chosen]
        w = w - column * w[chosen]
        inverse = inverse - column[:, None] * inverse[chosen][None, :]
        there = there & (indices != chosen)
        return (w, inverse, there), (chosen, scores[chosen])

    start = w, inverse, jnp.ones(len(w), bool)
    _, (order, losses) = lax.scan(step, start, None, length=len(w))
    steps = jnp.zeros(len(w), jnp.int32).at[order].set(indices.astype(jnp.int32))
    return steps, losses
