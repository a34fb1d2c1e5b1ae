# SPDX-License-Identifier: Apache-2.0
"""Steps shared by losses on logits: check, mask, widen, stop the teacher's gradient."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

LEAST_DEVIATION = 0.03  # of logits: gradients do not grow below it


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
    check_where(where, student)
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


def check_where(where: jax.Array | None, logits: jax.Array) -> None:
    """Refuse a mask that does not have one bool per position of the logits.

    Raises:
      ValueError: naming both shapes.
    """
    if where is not None and where.shape != logits.shape[:-1]:
        raise ValueError(
            f"where must have shape {logits.shape[:-1]}, one bool per position of logits "
            f"{logits.shape}, got {where.shape}."
        )


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
    is_positive = p != 0  # NaN too, so that it is not hidden
    # The difference of two infinities is NaN, and so is its gradient.
    gap = jnp.where(is_positive, log_p, 0) - jnp.where(is_positive, log_q, 0)
    return p * gap


def bound_gradient(x: jax.Array, size: jax.Array, least: float = 1e-3) -> jax.Array:
    """Return ``x``, and limit the gradient of a function that divides by ``size``.

    ``x`` is the input or the output of that function. It ignores scale, so its gradient
    is inversely proportional to the size. Near zero it would be astronomically large,
    and an optimizer such as Adam would remember it for thousands of steps. At sizes
    below ``least``, the gradient keeps its direction and is as large as at ``least``.
    """
    share = jnp.minimum(lax.stop_gradient(size) / least, 1)
    constant = lax.stop_gradient(x)
    return constant + share * (x - constant)
