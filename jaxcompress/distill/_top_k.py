# SPDX-License-Identifier: Apache-2.0
"""A teacher's largest probabilities, and losses that know what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._prepare import check_temperature, counted, divergence, zeroed


class TopK(NamedTuple):
    """What is kept of a teacher's distribution."""

    indices: jax.Array  # int32 (..., k): classes, the most probable first
    log_probs: jax.Array  # float32 (..., k): of softmax(logits / T)
    temperature: jax.Array  # float32 []: T


class Known(NamedTuple):
    """Student and teacher where the teacher is known; for a ``Tail``.

    Attributes:
      student: log-probabilities ``(..., k)``.
      teacher: likewise.
      student_rest: log-probability ``(...)`` of all other classes together.
      teacher_rest: likewise.
    """

    student: jax.Array
    teacher: jax.Array
    student_rest: jax.Array
    teacher_rest: jax.Array


Tail = Callable[[Known], jax.Array]
"""``known -> loss`` of shape ``(...)``: what becomes of the classes that were left out."""


def top_k(teacher: jax.Array, k: int, *, temperature: float | jax.Array = 1.0) -> TopK:
    """Keep the ``k`` most probable classes of a teacher.

    Args:
      teacher: logits, ``(..., classes)``.
      k: 1 to the number of classes.
      temperature: T > 0 of the loss to come: what is left out cannot be softened later.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> kept = jc.distill.top_k(jnp.log(jnp.array([0.2, 0.5, 0.3])), 2)
      >>> print(kept.indices, jnp.exp(kept.log_probs).round(3))
      [1 2] [0.5 0.3]
    """
    check_temperature(temperature)
    if not 1 <= k <= teacher.shape[-1]:
        raise ValueError(f"k={k} of {teacher.shape[-1]} classes cannot be kept.")
    logits = lax.stop_gradient(teacher).astype(jnp.float32)
    values, indices = lax.top_k(jax.nn.log_softmax(logits / temperature), k)
    return TopK(indices, values, jnp.asarray(temperature, jnp.float32))


def bucket(known: Known) -> jax.Array:
    """All that is left out as one class more: the largest lower bound there is.

    It sees a student that puts its mass elsewhere, which ``renormalize`` does not.
    """
    rest = divergence(known.teacher_rest, known.student_rest)
    return jnp.sum(divergence(known.teacher, known.student), -1) + rest


def renormalize(known: Known) -> jax.Array:
    """Among the known classes only, both made to sum to one.

    A student whose mass is all elsewhere may have a loss of zero.
    """
    return jnp.sum(
        divergence(
            jax.nn.log_softmax(known.teacher), jax.nn.log_softmax(known.student)
        ),
        -1,
    )


def zero(known: Known) -> jax.Array:
    """As if the teacher had given zero to what is left out; can be negative."""
    return jnp.sum(divergence(known.teacher, known.student), -1)


def top_k_kl(
    student: jax.Array,
    teacher: TopK,
    *,
    tail: Tail = bucket,
    where: jax.Array | None = None,
) -> jax.Array:
    """``kl`` to a teacher of which only the largest probabilities were kept.

    With ``k`` the number of classes it is ``kl``, whatever the tail.

    Args:
      student: logits, ``(..., classes)``.
      teacher: of ``top_k``, with leading axes ``(...)``; its temperature is the loss's.
      tail: what becomes of the rest: ``bucket``, ``renormalize`` or ``zero``.
      where: see ``kl``.

    Returns:
      ``(...)``, in nats times ``T**2``, not reduced.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([9.0, 8.0, 0.0, 0.0])
      >>> elsewhere = jnp.array([1.0, 0.0, 99.0, 0.0])  # but in the same ratio
      >>> kept = jc.distill.top_k(teacher, 2)
      >>> [round(float(jc.distill.top_k_kl(elsewhere, kept, tail=t)))
      ...  for t in (jc.distill.bucket, jc.distill.renormalize)]
      [98, 0]
    """
    if teacher.indices.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            f"student logits {student.shape} and kept teacher logits "
            f"{teacher.indices.shape} differ in their positions."
        )
    wide = jnp.promote_types(student.dtype, jnp.float32)
    log_q = jax.nn.log_softmax(
        zeroed(student.astype(wide), where) / teacher.temperature
    )
    log_p = lax.stop_gradient(zeroed(teacher.log_probs.astype(wide), where))
    indices = (
        jnp.where(where[..., None], teacher.indices, 0)
        if where is not None
        else (teacher.indices)
    )
    taken = jnp.zeros(student.shape, bool)
    taken = jnp.put_along_axis(taken, indices, True, -1, inplace=False)
    rest = jnp.where(taken, -np.inf, log_q)
    left = 1 - jnp.sum(jnp.exp(log_p), -1)
    # What rounding leaves of a sum of one is nothing.
    some = left > 1e-6 if indices.shape[-1] < student.shape[-1] else jnp.zeros((), bool)
    known = Known(
        jnp.take_along_axis(log_q, indices, -1),
        log_p,
        jnp.where(some, jax.nn.logsumexp(jnp.where(some[..., None], rest, 0), -1), 0),
        jnp.where(some, jnp.log(jnp.where(some, left, 1)), -np.inf),
    )
    return counted(teacher.temperature**2 * tail(known), where)
