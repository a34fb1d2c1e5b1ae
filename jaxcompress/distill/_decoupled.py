# SPDX-License-Identifier: Apache-2.0
"""Decoupled distillation: separate weights for the true class and the other classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ._prepare import divergence, log_probs, mask_loss


def decoupled(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    *,
    target: float | jax.Array = 1.0,
    others: float | jax.Array = 8.0,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Split ``kl`` into a true-class and an other-classes part, each with its own weight.

    Use it instead of ``kl`` when the teacher is confident: ``kl`` weighs the second
    part by the probability that the teacher leaves to the other classes, which is then
    small. With ``target=1, others=1 - p``, where p is the teacher's probability of the
    label, it equals ``kl``.

    Args:
      student: logits, ``(..., classes)``, with at least two classes.
      teacher: logits of the same shape.
      labels: integers ``(...)``.
      target: weight of the true-class part; a number, or an array ``(...)``.
      others: weight of the other-classes part; the paper tunes it from 1 to 8 with the
        teacher.
      temperature: T > 0.
      where: see ``kl``.

    Returns:
      ``(...)``, not reduced.

    Raises:
      ValueError: if the shapes do not match, or the temperature is not positive.
      TypeError: if labels are not integers.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> s, t = jnp.array([[1.0, 0.0, 2.0]]), jnp.array([[3.0, 0.0, 1.0]])
      >>> p = jnp.exp(t[0, 0]) / jnp.sum(jnp.exp(t))
      >>> same = jc.distill.decoupled(s, t, jnp.array([0]), others=1 - p)
      >>> bool(jnp.allclose(same, jc.distill.kl(s, t), atol=1e-6))
      True

    References:
      Zhao et al., 2022, https://arxiv.org/abs/2203.08679
    """
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels must be integers, got dtype {labels.dtype}.")
    if labels.shape != student.shape[:-1]:
        raise ValueError(
            f"labels must have shape {student.shape[:-1]}, one integer per position (not "
            f"one-hot), got {labels.shape}."
        )
    if student.shape[-1] < 2:
        raise ValueError(
            f"logits must have at least 2 classes, got {student.shape[-1]}."
        )
    log_probabilities = log_probs(student, teacher, temperature, where)
    classes = jax.lax.broadcasted_iota(jnp.int32, student.shape, student.ndim - 1)
    is_label = classes == labels[..., None]

    def split(log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Split into log-probabilities of (label, rest), and of the rest renormalized."""
        rest = jnp.where(is_label, -np.inf, log_p)
        total = jax.nn.logsumexp(rest, -1, keepdims=True)
        label = jnp.sum(jnp.where(is_label, log_p, 0), -1, keepdims=True)
        return jnp.concatenate([label, total], -1), rest - total

    (q, q_others), (p, p_others) = map(split, log_probabilities)
    loss = target * jnp.sum(divergence(p, q), -1) + others * jnp.sum(
        divergence(p_others, q_others), -1
    )
    return mask_loss(temperature**2 * loss, where)
