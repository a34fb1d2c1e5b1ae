# SPDX-License-Identifier: Apache-2.0
"""Ensembles of teachers."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._prepare import check_temperature


def ensemble(
    teachers: jax.Array,
    *,
    weights: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
) -> jax.Array:
    """Combine several teachers into one: logits of the mean of their probabilities.

    ``softmax(ensemble / T)`` is the mean of ``softmax(teachers / T)``: pass the result
    to a loss with the same temperature. Cross-entropy is linear in the target, so the
    gradient of ``kl`` to the ensemble is the mean of the gradients of ``kl`` to each
    teacher.

    Args:
      teachers: logits, ``(teachers, ..., classes)``.
      weights: ``(teachers,)`` or ``(teachers, ...)``, not negative; they are normalized
        to sum 1. None: equal weights.
      temperature: T > 0, that of the loss.

    Returns:
      ``(..., classes)``, float32 or wider. No gradient reaches the teachers.

    Raises:
      ValueError: if the teachers or the weights have the wrong shape.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.5, 0.5]]]))
      >>> [f"{p:.1f}" for p in jnp.exp(jc.distill.ensemble(logits))[0]]
      ['0.7', '0.3']

    References:
      Hinton et al., 2015, https://arxiv.org/abs/1503.02531
    """
    check_temperature(temperature)
    if teachers.ndim < 2:
        raise ValueError(
            f"teachers must be (teachers, ..., classes), got shape {teachers.shape}."
        )
    wide = jnp.promote_types(teachers.dtype, jnp.float32)
    logits = jax.lax.stop_gradient(teachers).astype(wide)
    log_p = jax.nn.log_softmax(logits / temperature)
    if weights is None:
        weights = jnp.ones(len(teachers), wide)
    if weights.shape not in (teachers.shape[:1], teachers.shape[:-1]):
        raise ValueError(
            f"weights must have shape {teachers.shape[:1]} (one per teacher) or "
            f"{teachers.shape[:-1]} (one per teacher and position), got {weights.shape}."
        )
    shape = weights.shape + (1,) * (teachers.ndim - weights.ndim)
    total = jnp.sum(weights, 0, keepdims=True)
    shares = (weights / total).astype(wide).reshape(shape)
    # Avoid log(0) at zero weights.
    log_shares = jnp.log(jnp.where(shares == 0, 1, shares))
    terms = jnp.where(shares == 0, -jnp.inf, log_p + log_shares)
    return temperature * jax.nn.logsumexp(terms, 0)
