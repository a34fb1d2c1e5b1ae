# SPDX-License-Identifier: Apache-2.0
"""DIST: make the student's probabilities correlate with the teacher's."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._prepare import LEAST_DEVIATION, bound_gradient, log_probs, mask_loss


def dist_inter(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the correlation of probabilities over classes, per example, times ``T**2``.

    Looser than ``kl``: use it when the student is much smaller than the teacher and
    need not match its probabilities exactly. The paper adds ``dist_intra`` and the loss
    of the labels. Arguments and the result ``(...)`` are those of ``kl``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> s, t = jnp.array([[0.0, 1.0, 2.0]]), jnp.array([[2.0, 1.0, 0.0]])
      >>> bool(jc.distill.dist_inter(s, t)[0] > 1)  # reversed order
      True

    References:
      Huang et al., 2022, https://arxiv.org/abs/2205.10536
    """
    log_q, log_p = log_probs(student, teacher, temperature, where)
    weights = jnp.ones((), log_q.dtype)
    gap = 1 - _correlate(jnp.exp(log_q), jnp.exp(log_p), weights, -1)
    return mask_loss(temperature**2 * gap, where)


def dist_intra(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the correlation of probabilities over examples, per class, times ``T**2``.

    The companion of ``dist_inter``. The value belongs to the batch as a whole, so the
    values of micro-batches differ and do not add up. Padding does not count.

    Args:
      student: logits, ``(..., classes)``; all leading axes are examples.
      teacher: logits of the same shape.
      temperature: T > 0.
      where: bool ``(...)``: examples that count.

    Returns:
      ``(classes,)``, not reduced.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> logits = jnp.array([[0.0, 1.0], [3.0, 1.0], [1.0, 1.5]])
      >>> jc.distill.dist_intra(logits, logits).round(5).tolist()
      [0.0, 0.0]

    References:
      Huang et al., 2022, https://arxiv.org/abs/2205.10536
    """
    log_q, log_p = log_probs(student, teacher, temperature, where)
    q, p = (jnp.exp(x).reshape(-1, x.shape[-1]) for x in (log_q, log_p))
    if where is None:
        weights = jnp.ones((len(q), 1), q.dtype)
    else:
        weights = where.reshape(-1, 1).astype(q.dtype)
    return temperature**2 * (1 - _correlate(q, p, weights, 0))


def _correlate(a: jax.Array, b: jax.Array, weights: jax.Array, axis: int) -> jax.Array:
    """Compute Pearson's correlation along an axis; zero if either side is constant."""
    count = jnp.sum(jnp.broadcast_to(weights, a.shape), axis, keepdims=True)
    count = jnp.maximum(count, 1)

    def direction(x: jax.Array) -> jax.Array:
        x = weights * x
        centered = weights * (x - jnp.sum(x, axis, keepdims=True) / count)
        whole = jnp.sum(x**2, axis, keepdims=True)
        # Of a constant, what remains is rounding, which must not be scaled to norm 1.
        square = jnp.maximum(jnp.sum(centered**2, axis, keepdims=True), 1e-10 * whole)
        is_zero = whole == 0  # not `whole > 0`, which would hide NaN
        size = jnp.sqrt(jnp.where(is_zero, 1, square))
        deviation = size / jnp.sqrt(jnp.where(is_zero, 1, whole))
        return bound_gradient(centered / size, deviation, LEAST_DEVIATION)

    return jnp.sum(direction(a) * direction(b), axis)
