# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on features at matching positions of two networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from .._mesh import on_any_mesh
from ._prepare import bound_gradient, mask_loss


@on_any_mesh
def hint(
    student: jax.Array,
    teacher: jax.Array,
    *,
    projector: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """Mean squared error between student and teacher features, with an optional projector.

    The standard loss on intermediate layers (FitNets). It is
    ``mean((student @ projector - teacher)**2)`` over the features of a position.
    Gradients reach the student and the projector, not the teacher.

    Args:
      student: ``(..., student features)``, such as ``(batch, height, width, channels)``.
      teacher: ``(..., teacher features)``, with the same leading axes.
      projector: ``(student features, teacher features)``, required if the widths
        differ. Train it with the student: put it into the parameters, and discard it
        afterwards.
      where: bool ``(...)``: positions that count. The others have loss 0, and gradient
        0 whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, float32 (or wider, if the student is), not reduced.

    Raises:
      ValueError: if the shapes do not match.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student, teacher = jnp.ones((4, 2)), jnp.zeros((4, 3))
      >>> jc.distill.hint(student, teacher, projector=jnp.ones((2, 3))).tolist()
      [4.0, 4.0, 4.0, 4.0]

    References:
      Romero et al., FitNets, 2015, https://arxiv.org/abs/1412.6550
    """
    student, teacher = _project(student, teacher, projector, where)
    return jnp.mean(jnp.square(student - teacher), axis=-1)


def cosine(
    student: jax.Array,
    teacher: jax.Array,
    *,
    projector: jax.Array | None = None,
    where: jax.Array | None = None,
) -> jax.Array:
    """One minus the cosine between student and teacher features, to match directions only.

    The loss goes from 0 (same direction) to 2 (opposite directions) and ignores
    lengths. A zero vector has no direction: its loss is 1 and its gradient 0, so do not
    start a projector from zeros. Gradients grow with the inverse of the student's
    length, but no further once all its magnitudes are below 0.001. No gradient reaches
    the teacher.

    Args:
      student: ``(..., student features)``, such as ``(batch, positions, width)``.
      teacher: ``(..., teacher features)``, with the same leading axes.
      projector: ``(student features, teacher features)``, required if the widths
        differ. Train it with the student: put it into the parameters, and discard it
        afterwards.
      where: bool ``(...)``: positions that count. The others have loss 0, and gradient
        0 whatever they hold. To average, divide the sum by ``where.sum()``.

    Returns:
      ``(...)``, float32 (or wider, if the student is), not reduced.

    Raises:
      ValueError: if the shapes do not match.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student = jnp.array([[3.0, 0.0], [0.0, 2.0]])
      >>> jc.distill.cosine(student, jnp.array([[1.0, 0.0], [1.0, 0.0]])).tolist()
      [0.0, 1.0]

    References:
      Sanh et al., DistilBERT, 2019, https://arxiv.org/abs/1910.01108
    """
    student, teacher = _project(student, teacher, projector, where)
    student = bound_gradient(student, magnitude(student, -1))
    return mask_loss(
        1 - jnp.sum(normalize(student) * normalize(teacher), axis=-1), where
    )


def prepare(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Cast both to float32 or wider, zero masked entries, stop the teacher's gradient.

    Args:
      student: ``(..., any)``.
      teacher: ``(..., any)``.
      where: bool ``(...)``, or None if all count.
    """
    wide = jnp.promote_types(student.dtype, jnp.float32)
    student, teacher = student.astype(wide), lax.stop_gradient(teacher).astype(wide)
    if where is None:
        return student, teacher
    # Before any arithmetic: NaN in padding would come back through the gradient.
    student, teacher = (
        jnp.where(where.reshape(where.shape + (1,) * (x.ndim - where.ndim)), x, 0)
        for x in (student, teacher)
    )
    return student, teacher


def rescale(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """Divide by the largest magnitude along axes, before a function that ignores scale.

    Then squares neither overflow nor underflow. The divisor is constant under
    differentiation, which is exact because the function does not depend on it. Zeros
    stay zero, with gradient 0.
    """
    largest = magnitude(x, axis)
    is_zero = largest == 0  # not `largest > 0`, which would hide NaN
    return jnp.where(is_zero, 0, x / jnp.where(is_zero, 1, largest))


def normalize(x: jax.Array) -> jax.Array:
    """Scale vectors along the last axis to norm 1. Zeros stay, with gradient 0."""
    x = rescale(x, -1)
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(squares == 0, 1, squares))


def magnitude(x: jax.Array, axis: int | tuple[int, ...] | None = None) -> jax.Array:
    """The largest magnitude along axes, which are kept. No gradient reaches ``x``."""
    largest = jnp.max(jnp.abs(x), axis=axis, keepdims=True, initial=0)
    return lax.stop_gradient(largest)


def inner_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """Inner products of vectors: ``(..., i, f)``, ``(..., j, f)`` to ``(..., i, j)``."""
    # At full precision: accelerators round to bfloat16 or TF32 by default.
    return jnp.einsum("...if,...jf->...ij", x, y, precision="highest")


def _project(
    student: jax.Array,
    teacher: jax.Array,
    projector: jax.Array | None,
    where: jax.Array | None,
) -> tuple[jax.Array, jax.Array]:
    if student.shape[:-1] != teacher.shape[:-1] or not student.shape:
        raise ValueError(
            "student and teacher features must have the same leading axes, got "
            f"{student.shape} and {teacher.shape}. Only the last axis may differ, with a "
            "projector. Pool or subsample one of them."
        )
    if where is not None and where.shape != student.shape[:-1]:
        raise ValueError(
            f"where must have shape {student.shape[:-1]}, one bool per position, got "
            f"{where.shape}."
        )
    widths = (student.shape[-1], teacher.shape[-1])
    if projector is None and widths[0] != widths[1]:
        raise ValueError(
            f"features of different widths, {widths[0]} and {widths[1]}, need projector=: "
            f"pass a matrix of shape {widths} and train it with the student."
        )
    if projector is not None and projector.shape != widths:
        raise ValueError(
            f"projector must have shape {widths} (student width, teacher width), got "
            f"{projector.shape}."
        )
    student, teacher = prepare(student, teacher, where)
    if projector is not None:
        student = student @ projector.astype(student.dtype)
    return student, teacher
