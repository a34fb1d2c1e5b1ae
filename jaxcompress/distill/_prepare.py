# SPDX-License-Identifier: Apache-2.0
"""What every loss on logits does first: check, mask, widen, stop the teacher's gradient."""

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
    """``log_softmax(logits / T)`` of both; the teacher is constant.

    Args:
      student: logits, ``(..., classes)``.
      teacher: logits of the same shape.
      temperature: T > 0.
      where: bool ``(...)``; the logits of other positions are taken for zeros.

    Raises:
      ValueError: if the shapes do not fit, or the temperature is not positive.
    """
    student, teacher = masked(student, teacher, where)
    check_temperature(temperature)
    return LogProbs(
        jax.nn.log_softmax(student / temperature),
        jax.nn.log_softmax(teacher / temperature),
    )


def masked(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Logits in float32 or wider, zeros where they do not count.

    Raises:
      ValueError: if the shapes do not fit.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student logits {student.shape} and teacher logits {teacher.shape} differ."
        )
    if where is not None and where.shape != student.shape[:-1]:
        raise ValueError(
            f"where= has shape {where.shape}; logits {student.shape} want "
            f"{student.shape[:-1]}, a bool for every position."
        )
    wide = jnp.promote_types(student.dtype, jnp.float32)
    student, teacher = student.astype(wide), lax.stop_gradient(teacher).astype(wide)
    # Before the softmax: a NaN in padding would come back through its gradient.
    return zeroed(student, where), zeroed(teacher, where)


def zeroed(x: jax.Array, where: jax.Array | None) -> jax.Array:
    """``x`` of shape ``(..., classes)``, zeros where a position does not count."""
    return x if where is None else jnp.where(where[..., None], x, 0)


def counted(loss: jax.Array, where: jax.Array | None) -> jax.Array:
    """Exactly zero where a position does not count."""
    return loss if where is None else jnp.where(where, loss, 0)


def check_temperature(temperature: float | jax.Array) -> None:
    """Refuse a known temperature that is not positive.

    Raises:
      ValueError: naming it.
    """
    if not isinstance(temperature, jax.Array) and not temperature > 0:
        raise ValueError(f"temperature={temperature} is not positive.")


def divergence(log_p: jax.Array, log_q: jax.Array) -> jax.Array:
    """``p * (log p - log q)``, each class by itself; zero where p is, whatever q is."""
    p = jnp.exp(log_p)
    there = p > 0
    # Of two infinities the difference is NaN, and so would be its gradient.
    gap = jnp.where(there, log_p, 0) - jnp.where(there, log_q, 0)
    return p * gap
