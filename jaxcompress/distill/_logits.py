# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax import lax


def kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Kullback-Leibler divergence of the student from the teacher, softened.

    ``T**2 * sum(p * (log p - log q))`` with ``p = softmax(teacher / T)`` and
    ``q = softmax(student / T)``; the factor keeps gradients of one size as T changes. It
    is zero where the two agree up to a constant, and no gradient reaches the teacher.

    Args:
      student: logits, ``(..., classes)``, floating point.
      teacher: logits of the same shape.
      temperature: T > 0, a number or a traced scalar (from a schedule).
      where: bool ``(...)``: positions that count. The others are 0, with a gradient of 0
        whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, in nats, not reduced: a mean over micro-batches, padding or devices is
      the caller's, who knows the weights.

    Raises:
      ValueError: if the shapes differ, or the temperature is not positive.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> logits = jnp.array([[2.0, 0.0], [0.0, 0.0]])
      >>> jc.distill.kl(logits, logits + 1.0, temperature=2.0).tolist()
      [0.0, 0.0]

    References:
      Hinton et al., 2015, https://arxiv.org/abs/1503.02531
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"student logits {student.shape} and teacher logits {teacher.shape} differ."
        )
    if not isinstance(temperature, jax.Array) and temperature <= 0:
        raise ValueError(f"temperature={temperature} is not positive.")
    teacher = lax.stop_gradient(teacher)
    if where is not None:
        # Before the softmax: a NaN in padding would come back through its gradient.
        student = jnp.where(where[..., None], student, 0)
        teacher = jnp.where(where[..., None], teacher, 0)
    wide = jnp.promote_types(student.dtype, jnp.float32)
    divergence = optax.losses.kl_divergence_with_log_targets(
        jax.nn.log_softmax(student.astype(wide) / temperature),
        jax.nn.log_softmax(teacher.astype(wide) / temperature),
    )
    return temperature**2 * divergence
