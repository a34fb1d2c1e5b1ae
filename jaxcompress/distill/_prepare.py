# SPDX-License-Identifier: Apache-2.0
"""Steps shared by losses on logits: check, mask, widen, stop the teacher's gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class LogProbs(NamedTuple):
    """Softened log-probabilities, float32 or wider, ``(..., classes)``."""

    student: jax.Array
    teacher: jax.Array


def log_probs(
    student: jax.Array,
    teacher: jax.Array,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> LogProbs:
    """Compute ``log_softmax(logits / T)`` of both; no gradient reaches the teacher.

    Args:
      student: logits, ``(..., classes)``.
      teacher: logits of the same shape.
      temperature: T > 0.
      where: bool ``(...)``; the logits of other positions are replaced by zeros.

    Raises:
      ValueError: if the shapes do not match, or the temperature is not positive.
    """
    student, teacher = mask_logits(student, teacher, where)
    check_temperature(temperature)
    return LogProbs(
        jax.nn.log_softmax(student / temperature),
        jax.nn.log_softmax(teacher / temperature),
    )


def mask_logits(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Cast logits to float32 or wider and zero the masked positions.

    Raises:
      ValueError: if the shapes do not match.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher logits must have the same shape, got "
            f"{student.shape} and {teacher.shape}."
        )
    if where is not None and where.shape != student.shape[:-1]:
        raise ValueError(
            f"where must have shape {student.shape[:-1]}, one bool per position of logits "
            f"{student.shape}, got {where.shape}."
        )
    wide = jnp.promote_types(student.dtype, jnp.float32)
    student, teacher = student.astype(wide), lax.stop_gradient(teacher).astype(wide)
    # Before the softmax: NaN in padding would come back through its gradient.
    return mask_array(student, where), mask_array(teacher, where)


def mask_array(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """Zero ``x``, of shape ``(..., classes)``, at masked positions."""
    return x if where is None else jnp.where(where[..., None], x, 0)


def mask_loss(loss: jax.Array, where: jax.Array | None) -> jax.Array:
    """Zero the loss at masked positions exactly."""
    return loss if where is None else jnp.where(where, loss, 0)


def check_temperature(temperature: float | jax.Array) -> None:
    """Refuse a concrete temperature that is not positive.

    Raises:
      ValueError: naming it.
    """
    if not isinstance(temperature, jax.Array) and not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """``p * (log p - log q)`` per class; zero where p is zero, whatever q is."""
    p = jnp.exp(log_p)
    is_positive = p > 0
    # The difference of two infinities is NaN, and so is its gradient.
    gap = jnp.where(is_positive, log_p, 0) - jnp.where(is_positive, log_q, 0)
    return p * gap
