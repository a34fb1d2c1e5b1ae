# SPDX-License-Identifier: Apache-2.0
"""Distillation from a teacher's top-k probabilities, as stored in a teacher cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._arguments import check_whole
from .._mesh import on_any_mesh
from .._signatures import name_defaults
from ._prepare import check_temperature, divergence, mask_array, mask_loss


class TopK(NamedTuple):
    """The top-k part of a teacher's distribution."""

    indices: jax.Array  # int32 (..., k): classes, the most probable first
    log_probs: jax.Array  # float32 (..., k): of softmax(logits / T)
    temperature: jax.Array  # float32 []: T


class Known(NamedTuple):
    """Student and teacher log-probabilities at the top-k classes: input of a ``Tail``.

    Attributes:
      student: log-probabilities ``(..., k)``.
      teacher: log-probabilities ``(..., k)``.
      student_rest: log-probability ``(...)`` of all other classes together.
      teacher_rest: log-probability ``(...)`` of all other classes together.
    """

    student: jax.Array
    teacher: jax.Array
    student_rest: jax.Array
    teacher_rest: jax.Array


Tail = Callable[[Known], jax.Array]
"""``known -> loss`` of shape ``(...)``: how the classes outside the top k are treated."""


@on_any_mesh
def top_k(teacher: jax.Array, k: int, *, temperature: float | jax.Array = 1.0) -> TopK:
    """Keep the ``k`` most probable classes of a teacher, to store its outputs compactly.

    Args:
      teacher: logits, ``(..., classes)``.
      k: from 1 to the number of classes.
      temperature: T > 0 of the later loss: omitted classes cannot be softened
        afterwards.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> kept = jc.distill.top_k(jnp.log(jnp.array([0.2, 0.5, 0.3])), 2)
      >>> print(kept.indices, jnp.exp(kept.log_probs).round(3))
      [1 2] [0.5 0.3]

    Raises:
      ValueError: if ``k`` or the temperature is out of range.
    """
    check_temperature(temperature)
    check_whole(k=k)
    if not 1 <= k <= teacher.shape[-1]:
        raise ValueError(f"k must be in [1, {teacher.shape[-1]}], got {k}.")
    logits = lax.stop_gradient(teacher).astype(jnp.float32)
    values, indices = lax.top_k(jax.nn.log_softmax(logits / temperature), k)
    return TopK(indices, values, jnp.asarray(temperature, jnp.float32))


def bucket(known: Known) -> jax.Array:
    """Treat all omitted classes as one extra class: the tightest lower bound on ``kl``.

    It penalizes a student that puts its mass on other classes; ``renormalize`` does
    not. The default.
    """
    rest = divergence(known.teacher_rest, known.student_rest)
    return jnp.sum(divergence(known.teacher, known.student), -1) + rest


def renormalize(known: Known) -> jax.Array:
    """Compare only the top-k classes, with both distributions renormalized to sum to one.

    A student with all its mass on other classes may have a loss of zero.
    """
    return jnp.sum(
        divergence(
            jax.nn.log_softmax(known.teacher), jax.nn.log_softmax(known.student)
        ),
        -1,
    )


def zero(known: Known) -> jax.Array:
    """Treat the omitted classes as having teacher probability zero; can be negative."""
    return jnp.sum(divergence(known.teacher, known.student), -1)


@name_defaults
@on_any_mesh
def top_k_kl(
    student: jax.Array,
    teacher: TopK,
    *,
    tail: Tail = bucket,
    where: jax.Array | None = None,
) -> jax.Array:
    """``kl`` to a teacher of which only the ``top_k`` classes were stored.

    If ``k`` is the number of classes, it equals ``kl``, whatever the tail.

    Args:
      student: logits, ``(..., classes)``.
      teacher: result of ``top_k``, with leading axes ``(...)``; the loss uses its
        temperature.
      tail: how omitted classes are treated: ``bucket``, ``renormalize`` or ``zero``.
      where: see ``kl``.

    Returns:
      ``(...)``, in nats times ``T**2``, not reduced.

    Raises:
      ValueError: if the shapes do not match.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([9.0, 8.0, 0.0, 0.0])
      >>> elsewhere = jnp.array([1.0, 0.0, 99.0, 0.0])  # same ratio within the top 2
      >>> kept = jc.distill.top_k(teacher, 2)
      >>> [round(float(jc.distill.top_k_kl(elsewhere, kept, tail=t)))
      ...  for t in (jc.distill.bucket, jc.distill.renormalize)]
      [98, 0]
    """
    if teacher.indices.shape[:-1] != student.shape[:-1]:
        raise ValueError(
            "student logits and top-k teacher must have the same leading axes, got "
            f"{student.shape} and {teacher.indices.shape}."
        )
    wide = jnp.promote_types(student.dtype, jnp.float32)
    log_q = jax.nn.log_softmax(
        mask_array(student.astype(wide), where) / teacher.temperature
    )
    log_p = lax.stop_gradient(mask_array(teacher.log_probs.astype(wide), where))
    indices = (
        jnp.where(where[..., None], teacher.indices, 0)
        if where is not None
        else (teacher.indices)
    )
    in_top_k = jnp.zeros(student.shape, bool)
    in_top_k = jnp.put_along_axis(in_top_k, indices, True, -1, inplace=False)
    rest = jnp.where(in_top_k, -np.inf, log_q)
    remainder = 1 - jnp.sum(jnp.exp(log_p), -1)
    # Rounding leaves tiny remainders of a sum of 1; treat them as zero.
    has_rest = (
        remainder > 1e-6
        if indices.shape[-1] < student.shape[-1]
        else jnp.zeros((), bool)
    )
    known = Known(
        jnp.take_along_axis(log_q, indices, -1),
        log_p,
        jnp.where(
            has_rest, jax.nn.logsumexp(jnp.where(has_rest[..., None], rest, 0), -1), 0
        ),
        jnp.where(has_rest, jnp.log(jnp.where(has_rest, remainder, 1)), -np.inf),
    )
    return mask_loss(teacher.temperature**2 * tail(known), where)
