# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on logits, from the divergences of distributions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ._prepare import counted, divergence, log_probs, masked


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
      student: logits, ``(..., classes)``, floating point. Sequences and dense predictions
        have more leading axes. Classes that are -inf in both do not count.
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
    terms = kl_by_class(student, teacher, temperature=temperature, where=where)
    return jnp.sum(terms, -1)


def kl_by_class(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """The terms of ``kl``, one a class: ``(..., classes)``; their sum is ``kl``.

    To weigh classes, or to see which ones the student misses. A term may be negative.

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
    """The divergence of the teacher from the student: ``T**2 * sum(q * (log q - log p))``.

    It asks the student to be right where it puts mass, not to cover all that the teacher
    does. Arguments and result are those of ``kl``.

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
    """The generalized Jensen-Shannon divergence, bounded whatever the logits are.

    ``mix * KL(p | m) + (1 - mix) * KL(q | m)`` with ``m = mix * p + (1 - mix) * q``, times
    ``T**2``. At 0.5 it is symmetric. Divided by ``mix`` it goes to ``kl`` as mix goes to
    0, and by ``1 - mix`` to ``reverse_kl`` as mix goes to 1.

    Args:
      student: logits, ``(..., classes)``.
      teacher: logits of the same shape.
      mix: share of the teacher in the mixture, in (0, 1); a number or a traced scalar.
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
            f"mix={mix} is not in (0, 1): at the ends the divergence is zero. Take kl for "
            "0 and reverse_kl for 1."
        )
    log_q, log_p = log_probs(student, teacher, temperature, where)
    # Where both are zero the logarithm of the mixture has no derivative.
    none = jnp.isneginf(log_p) & jnp.isneginf(log_q)
    parts = log_p + jnp.log(mix), log_q + jnp.log1p(-mix)
    mixed = jnp.logaddexp(*(jnp.where(none, 0, part) for part in parts))
    log_m = jnp.where(none, -jnp.inf, mixed)
    of_teacher = jnp.sum(divergence(log_p, log_m), -1)
    of_student = jnp.sum(divergence(log_q, log_m), -1)
    return temperature**2 * (mix * of_teacher + (1 - mix) * of_student)


def hard_labels(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Cross-entropy with the class that the teacher gives the largest logit.

    What is left of a teacher that only answers. Arguments as for ``kl``, in nats.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> loss = jc.distill.hard_labels(jnp.array([[0.0, 0.0]]), jnp.array([[1.0, 3.0]]))
      >>> bool(jnp.isclose(loss[0], jnp.log(2.0)))
      True
    """
    student, teacher = masked(student, teacher, where)
    labels = jnp.argmax(teacher, -1)
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(student, labels)
    return counted(loss, where)


def squared_logits(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Mean squared difference of the logits over the classes.

    Unlike ``kl`` it minds a constant that is added to all of them; centered, it is what
    ``kl`` becomes at a high temperature, but for a factor 2.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.squared_logits(jnp.array([[1.0, 4.0]]), jnp.zeros((1, 2))).tolist()
      [8.5]

    References:
      Ba and Caruana, 2014, https://arxiv.org/abs/1312.6184; Kim et al., 2021,
      https://arxiv.org/abs/2105.08919
    """
    student, teacher = masked(student, teacher, where)
    return jnp.mean((student - teacher) ** 2, -1)


def standardized(logits: jax.Array, *, epsilon: float = 1e-7) -> jax.Array:
    """Logits with mean 0 and standard deviation 1 over the classes.

    Apply it to both before ``kl``: the student then learns the relations between classes
    and not how large the teacher's logits are.

    Args:
      logits: ``(..., classes)``.
      epsilon: added to the deviation; logits that are all equal become zeros.

    Returns:
      Array like ``logits``, float32 or wider.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.distill.standardized(jnp.array([2.0, 4.0])).round(3).tolist()
      [-1.0, 1.0]

    References:
      Sun et al., 2024, https://arxiv.org/abs/2403.01427
    """
    wide = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    centered = wide - jnp.mean(wide, -1, keepdims=True)
    variance = jnp.mean(centered**2, -1, keepdims=True)
    # The root's derivative at zero is infinite.
    deviation = jnp.sqrt(jnp.where(variance > 0, variance, 1))
    return centered / (jnp.where(variance > 0, deviation, 0) + epsilon)
