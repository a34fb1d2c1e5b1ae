# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on features: what the two networks hold at one position."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._prepare import counted


def hint(
    student: jax.Array,
    teacher: jax.Array,
    *,
    projector: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Mean squared error between features of the student and of the teacher.

    ``mean((student @ projector - teacher)**2)`` over the features of a position. No
    gradient reaches the teacher; one does reach the projector.

    Args:
      student: ``(..., student features)``, such as ``(batch, height, width, channels)``.
      teacher: ``(..., teacher features)``, elsewhere of the same shape.
      projector: ``(student features, teacher features)``, needed where the widths
        differ. It is trained: put it into the parameters, and throw it away after.
      where: bool ``(...)``: positions that count. The others are 0, with a gradient of 0
        whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, float32 (or wider, as the student), not reduced.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student, teacher = jnp.ones((4, 2)), jnp.zeros((4, 3))
      >>> jc.distill.hint(student, teacher, projector=jnp.ones((2, 3))).tolist()
      [4.0, 4.0, 4.0, 4.0]

    References:
      Romero et al., FitNets, 2015, https://arxiv.org/abs/1412.6550
    """
    student, teacher = _projected(student, teacher, projector, where)
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def cosine(
    student: jax.Array,
    teacher: jax.Array,
    *,
    projector: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the cosine between features of the student and of the teacher.

    From 0 (one direction) to 2 (opposite ones), whatever the lengths. A vector of zeros
    has no direction: it gives 1, with a gradient of 0. No gradient reaches the teacher.

    Args:
      student: ``(..., student features)``, such as ``(batch, positions, width)``.
      teacher: ``(..., teacher features)``, elsewhere of the same shape.
      projector: ``(student features, teacher features)``, needed where the widths
        differ. It is trained: put it into the parameters, and throw it away after.
      where: bool ``(...)``: positions that count. The others are 0, with a gradient of 0
        whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, float32 (or wider, as the student), not reduced.

    Raises:
      ValueError: if the shapes do not fit.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> jc.distill.cosine(student, jnp.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
      [0.0, 1.0]

    References:
      Sanh et al., DistilBERT, 2019, https://arxiv.org/abs/1910.01108
    """
    student, teacher = _projected(student, teacher, projector, where)
    return counted(1 - jnp.sum(unit(student) * unit(teacher), axis=-1), where)


def prepared(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Both in float32 or wider, zero where they do not count, the teacher constant.

    Args:
      student: ``(..., any)``.
      teacher: ``(..., any)``.
      where: bool ``(...)``, or None where all count.
    """
    wide = jnp.promote_types(student.dtype, jnp.float32)
    student, teacher = student.astype(wide), lax.stop_gradient(teacher).astype(wide)
    if where is None:
        return student, teacher
    # Before all arithmetic: a NaN in padding would come back through a gradient.
    student, teacher = (
        jnp.where(where.reshape(where.shape + (1,) * (x.ndim - where.ndim)), x, 0)
        for x in (student, teacher)
    )
    return student, teacher


def rescaled(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Divide by the largest magnitude along axes, for a function that ignores scale.

    Then squares neither overflow nor vanish. The divisor is a constant to gradients,
    which is exact since what follows does not depend on it. Zeros stay, gradient 0.
    """
    largest = lax.stop_gradient(
        jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    )
    some = largest > 0
    return jnp.where(some, x / jnp.where(some, largest, 1), 0)


def unit(x: jax.Array) -> jax.Array:
    """Scale vectors along the last axis to norm 1. Zero ones stay, gradient 0."""
    x = rescaled(x, -1)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(squares > 0, squares, 1))


def products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner products of vectors: ``(..., i, f)`` and ``(..., j, f)`` to ``(..., i, j)``."""
    # At full precision: accelerators would round to bfloat16 or TF32.
    return jnp.einsum("...if,...jf->...ij", x, y, precision="highest")


def _projected(
    student: jax.Array,
    teacher: jax.Array,
    projector: jax.Array | None,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    if student.shape[:-1] != teacher.shape[:-1] or not student.shape:
        raise ValueError(
            f"student features {student.shape} and teacher features {teacher.shape} are "
            "not at the same positions: only the last axis may differ (and needs a "
            "projector then). Pool or subsample one of them."
        )
    if where is not None and where.shape != student.shape[:-1]:
        raise ValueError(
            f"where {where.shape} is not {student.shape[:-1]}, one bool a position."
        )
    widths = (student.shape[-1], teacher.shape[-1])
    if projector is None and widths[0] != widths[1]:
        raise ValueError(
            f"student features are {widths[0]} wide and the teacher's {widths[1]}: pass "
            f"projector=, a matrix {widths} that is trained with the student."
        )
    if projector is not None and projector.shape != widths:
        raise ValueError(
            f"projector {projector.shape} does not take student features to the "
            f"teacher's: it must be {widths}."
        )
    student, teacher = prepared(student, teacher, where)
    if projector is not None:
        student = student @ projector.astype(student.dtype)
    return student, teacher
