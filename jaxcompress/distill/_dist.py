# SPDX-License-Identifier: Apache-2.0
"""DIST: the student's probabilities shall correlate with the teacher's."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._prepare import counted, log_probs


def dist_inter(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the correlation over the classes of an example, times ``T**2``.

    Looser than ``kl``: a student much smaller than its teacher need not match its
    probabilities, but how they are ranked. The paper adds ``dist_intra``, and the loss of
    the labels. Arguments and result ``(...)`` are those of ``kl``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> s, t = jnp.array([[0.0, 1.0, 2.0]]), jnp.array([[2.0, 1.0, 0.0]])
      >>> bool(jc.distill.dist_inter(s, t)[0] > 1)  # the other way round
      True

    References:
      Huang et al., 2022, https://arxiv.org/abs/2205.10536
    """
    log_q, log_p = log_probs(student, teacher, temperature, where)
    weights = jnp.ones((), log_q.dtype)
    gap = 1 - _correlation(jnp.exp(log_q), jnp.exp(log_p), weights, -1)
    return counted(temperature**2 * gap, where)


def dist_intra(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the correlation over the examples of a class, times ``T**2``.

    It belongs to the batch as a whole, so parts of a batch have values of their own, that
    do not add up; padding does not count.

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
    return temperature**2 * (1 - _correlation(q, p, weights, 0))


def _correlation(
    a: jax.Array, b: jax.Array, weights: jax.Array, axis: int
) -> jax.Array:
    """Pearson's along an axis; zero where one of the two does not vary."""
    number = jnp.sum(jnp.broadcast_to(weights, a.shape), axis, keepdims=True)
    number = jnp.maximum(number, 1)

    def centered(x: jax.Array) -> jax.Array:
        mean = jnp.sum(weights * x, axis, keepdims=True) / number
        return weights * (x - mean)

    a, b = centered(a), centered(b)
    product = jnp.sum(a * b, axis)
    square = jnp.sum(a**2, axis) * jnp.sum(b**2, axis)
    varies = square > 0
    return jnp.where(varies, product / jnp.sqrt(jnp.where(varies, square, 1)), 0)
