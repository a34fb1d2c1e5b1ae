# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on logits: KL and other divergences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from .._mesh import on_any_mesh
from ._prepare import (
    LEAST_DEVIATION,
    bound_gradient,
    check_where,
    divergence,
    log_probs,
    mask_array,
    mask_logits,
    mask_loss,
)


def kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """KL divergence of softened student from teacher: the standard distillation loss.

    It is ``T**2 * sum(p * (log p - log q))`` with ``p = softmax(teacher / T)`` and
    ``q = softmax(student / T)``. The factor keeps the size of gradients constant as T
    changes. The loss is zero where the logits agree up to a constant. No gradient reaches
    the teacher.

    Args:
      student: logits, ``(..., classes)``, floating point. Sequences and dense
        predictions have more leading axes. Classes that are -inf in both do not count.
      teacher: logits of the same shape.
      temperature: T > 0, a number or a traced scalar (from a schedule).
      where: bool ``(...)``: positions that count. The others have loss 0, and gradient
        0 whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, in nats, not reduced: average it yourself over micro-batches, padding
      or devices, with the right weights.

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
    terms = kl_by_class(student, teacher, temperature=temperature, where=where)
    return jnp.sum(terms, -1)


def kl_by_class(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """The terms of ``kl`` per class, ``(..., classes)``; their sum is ``kl``.

    Use it to weight classes, or to see which ones the student misses. A term may be
      negative.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> terms = jc.distill.kl_by_class(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]))
      >>> [round(float(t), 3) for t in terms]
      [0.278, -0.167]
    """
    log_q, log_p = log_probs(student, teacher, temperature, where)
    return temperature**2 * divergence(log_p, log_q)


def reverse_kl(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """KL divergence of the teacher from the student: ``T**2 * sum(q * (log q - log p))``.

    It is mode-seeking: the student must be right where it puts mass, and need not cover
    all that the teacher does. Use it for small language models. Arguments and result
    are those of ``kl``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> a, b = jnp.array([2.0, 0.0]), jnp.array([0.0, 0.0])
      >>> bool(jc.distill.reverse_kl(a, b) == jc.distill.kl(b, a))
      True

    References:
      Gu et al., 2023, https://arxiv.org/abs/2306.08543
    """
    log_q, log_p = log_probs(student, teacher, temperature, where)
    return temperature**2 * jnp.sum(divergence(log_q, log_p), -1)


def jensen_shannon(
    student: jax.Array,
    teacher: jax.Array,
    *,
    mix: float | jax.Array = 0.5,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """Generalized Jensen-Shannon divergence: bounded, between ``kl`` and ``reverse_kl``.

    It is ``mix * KL(p | m) + (1 - mix) * KL(q | m)`` with
    ``m = mix * p + (1 - mix) * q``, times ``T**2``. At 0.5 it is symmetric. Divided by
    ``mix`` it approaches ``kl`` as mix goes to 0; divided by ``1 - mix`` it approaches
    ``reverse_kl`` as mix goes to 1.

    Args:
      student: logits, ``(..., classes)``.
      teacher: logits of the same shape.
      mix: weight of the teacher in the mixture, in (0, 1); a number or a traced scalar.
      temperature: T > 0.
      where: see ``kl``.

    Returns:
      ``(...)``, not reduced.

    Raises:
      ValueError: if the shapes differ, or the mix or the temperature is out of range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> far = jc.distill.jensen_shannon(jnp.array([99.0, 0]), jnp.array([0, 99.0]))
      >>> bool(jnp.isclose(far, jnp.log(2.0)))
      True

    References:
      Agarwal et al., 2023, https://arxiv.org/abs/2306.13649
    """
    if not isinstance(mix, jax.Array) and not 0 < mix < 1:
        raise ValueError(
            f"mix must be in (0, 1), got {mix}. The divergence is zero at the ends: use kl "
            "for 0 and reverse_kl for 1."
        )
    log_q, log_p = log_probs(student, teacher, temperature, where)
    # Where both probabilities are zero, the log of the mixture has no derivative.
    both_zero = jnp.isneginf(log_p) & jnp.isneginf(log_q)
    parts = log_p + jnp.log(mix), log_q + jnp.log1p(-mix)
    mixed = jnp.logaddexp(*(jnp.where(both_zero, 0, part) for part in parts))
    log_m = jnp.where(both_zero, -jnp.inf, mixed)
    teacher_term = jnp.sum(divergence(log_p, log_m), -1)
    student_term = jnp.sum(divergence(log_q, log_m), -1)
    return temperature**2 * (mix * teacher_term + (1 - mix) * student_term)


@on_any_mesh
def hard_labels(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy with the teacher's top class, for teachers that return only a label.

    Arguments are those of ``kl``; the result is in nats.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> loss = jc.distill.hard_labels(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 3.0]]))
      >>> bool(jnp.isclose(loss[0], jnp.log(2.0)))
      True
    """
    student, teacher = mask_logits(student, teacher, where)
    labels = jnp.argmax(teacher, -1)
    is_bad = jnp.isnan(teacher).any(-1)  # argmax would take NaN for the largest
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(student, labels)
    return mask_loss(jnp.where(is_bad, jnp.nan, loss), where)


def squared_logits(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Mean squared difference between student and teacher logits, over the classes.

    Unlike ``kl``, it penalizes a constant added to all logits. With centered logits it
    is the limit of ``kl`` at high temperature, up to a factor of 2.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.squared_logits(jnp.array([[1.0, 4.0]]), jnp.zeros((1, 2))).tolist()
      [8.5]

    References:
      Ba and Caruana, 2014, https://arxiv.org/abs/1312.6184; Kim et al., 2021,
      https://arxiv.org/abs/2105.08919
    """
    student, teacher = mask_logits(student, teacher, where)
    return jnp.mean((student - teacher) ** 2, -1)


def standardized(
    logits: jax.Array, *, epsilon: float = 1e-7, where: jax.Array | None = None
) -> jax.Array:
    """Scale logits to mean 0 and standard deviation 1 over the classes, before a loss.

    Apply it to student and teacher before ``kl``: the student then learns the relations
    between classes, not the scale of the teacher's logits. Gradients grow with the
    inverse of the standard deviation, but no further once it is below 0.03, so that a
    student may start from zeros.

    Args:
      logits: ``(..., classes)``.
      epsilon: added to the standard deviation; logits that are all equal become zeros.
      where: bool ``(...)``: positions that count. The others become zeros, with gradient
        0 whatever they hold. Pass it here and to the loss.

    Returns:
      Array like ``logits``, float32 or wider.

    Raises:
      ValueError: if ``where`` has the wrong shape.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.standardized(jnp.array([2.0, 4.0])).round(3).tolist()
      [-1.0, 1.0]

    References:
      Sun et al., 2024, https://arxiv.org/abs/2403.01427
    """
    check_where(where, logits)
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    wide = mask_array(wide, where)
    centered = wide - jnp.mean(wide, -1, keepdims=True)
    variance = jnp.mean(centered**2, -1, keepdims=True)
    # The derivative of the square root is infinite at zero. Not `variance > 0`, which
    # would hide NaN.
    is_constant = variance == 0
    deviation = jnp.sqrt(jnp.where(is_constant, 1, variance))
    deviation = jnp.where(is_constant, 0, deviation) + epsilon
    return bound_gradient(centered / deviation, deviation, LEAST_DEVIATION)
