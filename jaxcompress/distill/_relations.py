# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on relations between the examples of a batch.

They compare each example with all others. On a mesh the compiler gathers what it needs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from .._mesh import on_any_mesh
from ._features import (
    inner_products,
    magnitude,
    normalize,
    prepare,
    rescale,
)
from ._prepare import bound_gradient, check_temperature, mask_loss


@on_any_mesh
def relational_distance(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Match pairwise distances between examples, in units of the mean distance (RKD).

    The loss is the Huber loss between the two distances. It ignores translation,
    rotation and scale of the features, so widths may differ without a projector. It
    takes memory for ``batch**2`` vectors. No gradient reaches the teacher.

    **A value depends on its batch**: on the other examples, and on the mean distance.
    Micro-batches, or one batch per device in ``shard_map``, change it, by definition of
    the loss. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are flattened to one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no pair; their
        loss is 0, and their gradient is 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, if the student is): the mean over the pairs of an
      example, not reduced further. The mean over the examples is the mean over all
      pairs (the authors' code also averages in the zeros of examples with themselves).
      It is 0 if there is no pair.

    Raises:
      ValueError: if the numbers of examples differ.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
      >>> student = jnp.array([[1.0], [2.0], [3.0]])  # on a line, at equal distances
      >>> jc.distill.relational_distance(student, teacher).round(6).tolist()
      [0.0, 0.0, 0.0]

    References:
      Park et al., 2019, https://arxiv.org/abs/1904.05068
    """
    student, teacher, where = _flatten_examples(student, teacher, where)
    pairs = where[:, None] & where[None, :] & ~jnp.eye(len(where), dtype=bool)

    def distances(x: jax.Array) -> jax.Array:
        unit, x = magnitude(x), rescale(x)
        # Differences, not a Gram matrix, which suffers cancellation far from the origin.
        squares = jnp.sum(jnp.square(x[:, None] - x[None, :]), axis=-1)
        is_apart = pairs & (squares != 0)  # the slope of sqrt is infinite at 0
        roots = jnp.where(is_apart, jnp.sqrt(jnp.where(is_apart, squares, 1)), 0)
        mean = _masked_mean(roots, pairs, axis=None)
        roots = roots / jnp.where(mean == 0, 1, mean)
        return bound_gradient(roots, mean * unit.squeeze())

    huber = optax.losses.huber_loss(distances(student), distances(teacher))
    return _masked_mean(huber, pairs, axis=1)


@on_any_mesh
def relational_angle(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Match angles within triples of examples: Huber loss between their cosines (RKD).

    The angle is the one at which an example sees two others. Like
    `relational_distance`, it ignores translation, rotation and scale of the features.
    It takes memory for a few times ``batch**2`` vectors and ``batch**3`` cosines. No
    gradient reaches the teacher.

    **A value depends on its batch.** Micro-batches, or one batch per device in
    ``shard_map``, change it, by definition of the loss. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are flattened to one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no triple; their
        loss is 0, and their gradient is 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, if the student is): the mean over the pairs of
      two other examples, not reduced further. It is 0 if there is no such pair.

    Raises:
      ValueError: if the numbers of examples differ.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
      >>> student = jnp.array([[1.0], [2.0], [5.0]])  # on a line
      >>> jc.distill.relational_angle(student, teacher).round(6).tolist()
      [0.0, 0.0, 0.0]

    References:
      Park et al., 2019, https://arxiv.org/abs/1904.05068
    """
    student, teacher, where = _flatten_examples(student, teacher, where)
    pairs = where[:, None] & where[None, :] & ~jnp.eye(len(where), dtype=bool)

    def cosines(x: jax.Array) -> jax.Array:  # [vertex, one, other]
        unit, x = magnitude(x), rescale(x)
        gaps = x[None, :] - x[:, None]
        directions = normalize(
            bound_gradient(gaps, magnitude(gaps, -1) * unit.squeeze())
        )
        return inner_products(directions, directions)

    triples = pairs[:, :, None] & pairs[:, None, :] & pairs[None, :, :]
    huber = optax.losses.huber_loss(cosines(student), cosines(teacher))
    return _masked_mean(huber, triples, axis=(1, 2))


@on_any_mesh
def similarity_preserving(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Match how similar each example is to all examples of its batch: squared error.

    Similarities are inner products, ``x @ x.T``, with rows scaled to norm 1. The loss
    ignores rotation and scale of the features, so widths may differ without a
    projector. No gradient reaches the teacher.

    **A value depends on its batch.** Micro-batches, or one batch per device in
    ``shard_map``, change it, by definition of the loss. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are flattened to one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no row and no
        column; their loss is 0, and their gradient is 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, if the student is): the mean over a row, not
      reduced further. The mean over the examples is the paper's loss.

    Raises:
      ValueError: if the numbers of examples differ.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([[1.0, 0.0], [0.0, 1.0]])
      >>> student = jnp.array([[0.0, 2.0, 0.0], [0.0, 0.0, 2.0]])
      >>> jc.distill.similarity_preserving(student, teacher).tolist()
      [0.0, 0.0]

    References:
      Tung and Mori, 2019, https://arxiv.org/abs/1907.09682
    """
    student, teacher, where = _flatten_examples(student, teacher, where)
    student = bound_gradient(student, magnitude(student, -1))
    rows = [normalize(inner_products(x, x)) for x in map(rescale, (student, teacher))]
    return _masked_mean(
        jnp.square(rows[0] - rows[1]), where[:, None] & where[None, :], axis=1
    )


@on_any_mesh
def contrastive(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """Contrast each example's teacher embedding with the others of the batch (InfoNCE).

    The loss is ``-log softmax(cos(student_i, teacher_j) / temperature)`` at ``j = i``.
    It is CRD with the batch as negatives. CRD draws thousands of negatives from a
    memory bank of the whole data set, which is state, and trains a projector on both
    sides; see ``crd``. This is a pure function, so a small batch gives an easy task and
    a weak loss. The loss is not 0 where the two agree. No gradient reaches the teacher.

    **A value depends on its batch.** Micro-batches, or one batch per device in
    ``shard_map``, change it, by definition of the loss. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are flattened to one vector.
      teacher: ``(batch, ...)``, of the same examples, with the same width.
      temperature: > 0, a number or a traced scalar.
      where: bool ``(batch,)``: examples that count. The others are not negatives; their
        loss is 0, and their gradient is 0 whatever they hold.

    Returns:
      ``(batch,)``, in nats, float32 (or wider, if the student is), not reduced.

    Raises:
      ValueError: if the shapes differ, or the temperature is not positive.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> losses = jc.distill.contrastive(jnp.eye(3), 2 * jnp.eye(3))
      >>> [f"{loss:.6f}" for loss in losses]  # log(1 + 2 exp(-10))
      ['0.000091', '0.000091', '0.000091']

    References:
      Tian et al., CRD, 2020, https://arxiv.org/abs/1910.10699;
      van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    check_temperature(temperature)
    student, teacher, where = _flatten_examples(student, teacher, where)
    if student.shape != teacher.shape:
        raise ValueError(
            "student and teacher embeddings must have the same width, got "
            f"{student.shape[1]} and {teacher.shape[1]}. Apply a projector first: a matrix "
            "trained with the student."
        )
    student = bound_gradient(student, magnitude(student, -1))
    directions = (normalize(rescale(x)) for x in (student, teacher))
    logits = inner_products(*directions) / temperature
    # Finite, so that masked rows still have a softmax.
    logits = jnp.where(where[None, :], logits, jnp.finfo(logits.dtype).min)
    return mask_loss(-jnp.diagonal(jax.nn.log_softmax(logits)), where)


def _flatten_examples(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return both as (batch, features), and the mask."""
    if student.shape[:1] != teacher.shape[:1] or not student.shape:
        raise ValueError(
            "student and teacher must have the same batch as their first axis, got "
            f"{student.shape} and {teacher.shape}."
        )
    batch = len(student)
    if where is not None and where.shape != (batch,):
        raise ValueError(
            f"where must have shape {(batch,)}, one bool per example, got {where.shape}."
        )
    student, teacher = (x.reshape(batch, -1) for x in prepare(student, teacher, where))
    is_counted = jnp.ones(batch, bool) if where is None else where.astype(bool)
    return student, teacher, is_counted


def _masked_mean(
    x: jax.Array, where: jax.Array, axis: int | tuple[int, ...] | None
) -> jax.Array:
    total = jnp.sum(jnp.where(where, x, 0), axis=axis)
    return total / jnp.maximum(jnp.sum(where, axis=axis), 1)
