# SPDX-License-Identifier: Apache-2.0
"""KL divergence over large vocabularies without the full logits."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from .._arguments import check_whole
from .._mesh import on_any_mesh
from ._prepare import check_temperature, mask_array, mask_loss


@on_any_mesh
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
    """Compute ``kl(student @ student_head, teacher @ teacher_head)`` in chunks of classes.

    Use it for large vocabularies, whose logits are the largest arrays of a training
    step. Here only one chunk of classes exists at a time, and the backward pass
    recomputes it.

    Args:
      student: features before the student's head, ``(..., d)``.
      student_head: ``(d, classes)``.
      teacher: features before the teacher's head, ``(..., e)``.
      teacher_head: ``(e, classes)``.
      chunk: classes per chunk; it need not divide the number of classes.
      temperature: T > 0.
      where: see ``kl``.

    Returns:
      ``(...)``, in nats times ``T**2``, not reduced. Gradients reach the student and
      its head.

    Raises:
      ValueError: if the shapes do not match, or ``chunk`` or ``temperature`` is not
        positive.

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
            "student and teacher features must have the same leading axes, got "
            f"{student.shape} and {teacher.shape}."
        )
    classes = student_head.shape[-1]
    if teacher_head.shape[-1] != classes:
        raise ValueError(
            "student and teacher heads must have the same number of classes, got "
            f"{classes} and {teacher_head.shape[-1]}."
        )
    check_whole(chunk=chunk)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}.")
    teacher, teacher_head = lax.stop_gradient((teacher, teacher_head))
    student, teacher = mask_array(student, where), mask_array(teacher, where)
    wide = jnp.promote_types(student.dtype, jnp.float32)
    chunks = math.ceil(classes / chunk)

    def logits(features: jax.Array, head: jax.Array, first: jax.Array) -> jax.Array:
        # The last chunk starts earlier; its overlap with the one before is masked.
        start = jnp.minimum(first, max(classes - chunk, 0))
        size = min(chunk, classes)
        columns = lax.dynamic_slice_in_dim(head, start, size, 1)
        product = jnp.matmul(features, columns, preferred_element_type=wide)
        is_new = start + jnp.arange(size) >= first
        shape = (1,) * (product.ndim - 1) + (size,)
        return jnp.where(
            is_new.reshape(shape), product.astype(wide) / temperature, -jnp.inf
        )

    @jax.checkpoint
    def add_chunk(
        carry: tuple[jax.Array, ...], first: jax.Array
    ) -> tuple[tuple[jax.Array, ...], None]:
        s_max, s_sum, t_max, t_sum, gap = carry
        s, t = (
            logits(student, student_head, first),
            logits(teacher, teacher_head, first),
        )
        s_new = jnp.maximum(s_max, lax.stop_gradient(jnp.max(s, -1)))
        t_new = jnp.maximum(t_max, jnp.max(t, -1))
        is_finite = jnp.isfinite(t)
        weights = jnp.where(is_finite, jnp.exp(t - t_new[..., None]), 0)
        differences = jnp.where(is_finite, t, 0) - jnp.where(is_finite, s, 0)
        shrink = jnp.exp(t_max - t_new)
        return (
            s_new,
            s_sum * jnp.exp(s_max - s_new) + jnp.sum(jnp.exp(s - s_new[..., None]), -1),
            t_new,
            t_sum * shrink + jnp.sum(weights, -1),
            gap * shrink + jnp.sum(weights * differences, -1),
        ), None

    zeros = jnp.zeros(student.shape[:-1], wide)
    lowest = jnp.full_like(zeros, jnp.finfo(wide).min)
    start = (lowest, zeros, lowest, zeros, zeros)
    (s_max, s_sum, t_max, t_sum, gap), _ = lax.scan(
        add_chunk, start, jnp.arange(chunks) * chunk
    )
    loss = gap / t_sum - (t_max + jnp.log(t_sum)) + (s_max + jnp.log(s_sum))
    return mask_loss(temperature**2 * loss, where)
