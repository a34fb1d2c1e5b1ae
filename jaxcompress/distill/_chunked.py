# SPDX-License-Identifier: Apache-2.0
"""Large vocabularies: the loss without the logits."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from ._prepare import check_temperature, counted, zeroed


def kl_of_heads(
    student: jax.Array,
    student_head: jax.Array,
    teacher: jax.Array,
    teacher_head: jax.Array,
    *,
    chunk: int = 4096,
    temperature: float | jax.Array = 1.0,
    where: jax.Array | None = None,
) -> jax.Array:
    """``kl(student @ student_head, teacher @ teacher_head)``, a chunk of classes at a time.

    The logits of a large vocabulary are the largest arrays of a training step; here no
    more than a chunk of them is there at once, and the backward pass computes them again.

    Args:
      student: features that the logits are made of, ``(..., d)``.
      student_head: ``(d, classes)``.
      teacher: ``(..., e)``.
      teacher_head: ``(e, classes)``.
      chunk: classes at a time; need not divide their number.
      temperature: T > 0.
      where: see ``kl``.

    Returns:
      ``(...)``, in nats times ``T**2``, not reduced. Gradients reach the student and its
      head.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax, jaxcompress as jc
      >>> a, b, c, d = (jax.random.normal(k, s) for k, s in zip(
      ...     jax.random.split(jax.random.key(0), 4), [(5, 8), (8, 100), (5, 6), (6, 100)]))
      >>> chunked = jc.distill.kl_of_heads(a, b, c, d, chunk=32)
      >>> bool(abs(chunked - jc.distill.kl(a @ b, c @ d)).max() < 1e-4)
      True
    """
    check_temperature(temperature)
    if student.shape[:-1] != teacher.shape[:-1]:
        raise ValueError(
            f"student features {student.shape} and teacher features {teacher.shape} "
            "differ in their positions."
        )
    classes = student_head.shape[-1]
    if teacher_head.shape[-1] != classes:
        raise ValueError(
            f"the student's head has {classes} classes, the teacher's "
            f"{teacher_head.shape[-1]}."
        )
    if chunk < 1:
        raise ValueError(f"chunk={chunk} is below 1.")
    teacher, teacher_head = lax.stop_gradient((teacher, teacher_head))
    student, teacher = zeroed(student, where), zeroed(teacher, where)
    wide = jnp.promote_types(student.dtype, jnp.float32)
    number = math.ceil(classes / chunk)

    def logits(features: jax.Array, head: jax.Array, first: jax.Array) -> jax.Array:
        # The last chunk begins earlier, and what it shares with the one before is left out.
        start = jnp.minimum(first, max(classes - chunk, 0))
        size = min(chunk, classes)
        part = lax.dynamic_slice_in_dim(head, start, size, 1)
        product = jnp.matmul(features, part, preferred_element_type=wide)
        new = start + jnp.arange(size) >= first
        shape = (1,) * (product.ndim - 1) + (size,)
        return jnp.where(
            new.reshape(shape), product.astype(wide) / temperature, -jnp.inf
        )

    @jax.checkpoint
    def add(
        carry: tuple[jax.Array, ...], first: jax.Array
    ) -> tuple[tuple[jax.Array, ...], None]:
        s_max, s_sum, t_max, t_sum, gap = carry
        s, t = (
            logits(student, student_head, first),
            logits(teacher, teacher_head, first),
        )
        s_new = jnp.maximum(s_max, lax.stop_gradient(jnp.max(s, -1)))
        t_new = jnp.maximum(t_max, jnp.max(t, -1))
        there = jnp.isfinite(t)
        weights = jnp.where(there, jnp.exp(t - t_new[..., None]), 0)
        between = jnp.where(there, t, 0) - jnp.where(there, s, 0)
        shrink = jnp.exp(t_max - t_new)
        return (
            s_new,
            s_sum * jnp.exp(s_max - s_new) + jnp.sum(jnp.exp(s - s_new[..., None]), -1),
            t_new,
            t_sum * shrink + jnp.sum(weights, -1),
            gap * shrink + jnp.sum(weights * between, -1),
        ), None

    nothing = jnp.zeros(student.shape[:-1], wide)
    lowest = jnp.full_like(nothing, jnp.finfo(wide).min)
    start = (lowest, nothing, lowest, nothing, nothing)
    (s_max, s_sum, t_max, t_sum, gap), _ = lax.scan(
        add, start, jnp.arange(number) * chunk
    )
    loss = gap / t_sum - (t_max + jnp.log(t_sum)) + (s_max + jnp.log(s_sum))
    return counted(temperature**2 * loss, where)
