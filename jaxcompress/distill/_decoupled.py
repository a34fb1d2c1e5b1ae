# SPDX-License-Identifier: Apache-2.0
"""Decoupled distillation: the true class and the others, each with a weight."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ._prepare import counted, divergence, log_probs


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
    """``kl`` in two parts: how sure one is of the label, and how the rest is divided.

    ``kl`` weighs the second part by what the teacher leaves to the other classes, which is
    little where it is sure, and that is where it knows most of them. With
    ``target=1, others=1 - p`` of the teacher's probability p of the label, it is ``kl``.

    Args:
      student: logits, ``(..., classes)``, of two classes or more.
      teacher: logits of the same shape.
      labels: integers ``(...)``.
      target: weight of the first part; a number, or an array ``(...)``.
      others: weight of the second; the paper tunes it from 1 to 8 with the teacher.
      temperature: T > 0.
      where: see ``kl``.

    Returns:
      ``(...)``, not reduced.

    Raises:
      ValueError: if the shapes do not fit, or the temperature is not positive.
      TypeError: if labels are no integers.

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
        raise TypeError(f"labels of dtype {labels.dtype}: integers are expected.")
    if labels.shape != student.shape[:-1]:
        raise ValueError(
            f"labels {labels.shape} do not go with logits {student.shape}: one for every "
            "position, not one-hot."
        )
    if student.shape[-1] < 2:
        raise ValueError("one class leaves nothing to tell apart.")
    both = log_probs(student, teacher, temperature, where)
    classes = jax.lax.broadcasted_iota(jnp.int32, student.shape, student.ndim - 1)
    is_label = classes == labels[..., None]

    def split(log_p: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Log-probabilities of label and rest, and of the others among themselves."""
        rest = jnp.where(is_label, -np.inf, log_p)
        total = jax.nn.logsumexp(rest, -1, keepdims=True)
        of_label = jnp.sum(jnp.where(is_label, log_p, 0), -1, keepdims=True)
        return jnp.concatenate([of_label, total], -1), rest - total

    (q, q_others), (p, p_others) = map(split, both)
    loss = target * jnp.sum(divergence(p, q), -1) + others * jnp.sum(
        divergence(p_others, q_others), -1
    )
    return counted(temperature**2 * loss, where)
