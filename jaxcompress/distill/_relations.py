# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on relations between the examples of a batch.

They pair each example with all others. On a mesh with automatic axes the compiler gathers
what it needs; on one with explicit axes, ``jax.sharding.reshard`` the batch first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from ._features import prepared, products, rescaled, unit
from ._prepare import check_temperature, counted


def relational_distance(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Huber loss between distances of examples, each in units of its mean distance.

    It ignores where the features lie, how they are turned, and their scale, so widths
    may differ without a projector. It takes memory for ``batch**2`` vectors. No gradient
    reaches the teacher.

    **A value depends on the batch it is in**: on the other examples, and on the mean
    distance. Micro-batches, or a batch a device in ``shard_map``, change it: that is
    what the loss is. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are taken as one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no pair, and are
        0, with a gradient of 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, as the student): the mean over the pairs of an
      example, not reduced further. The mean over the examples is that over all pairs
      (the authors' code also averages in the zeros of examples with themselves). It is
      0 where there is no pair.

    Raises:
      ValueError: if the numbers of examples differ.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
      >>> student = jnp.array([[1.0], [2.0], [3.0]])  # in line, at equal distances
      >>> jc.distill.relational_distance(student, teacher).round(6).tolist()
      [0.0, 0.0, 0.0]

    References:
      Park et al., 2019, https://arxiv.org/abs/1904.05068
    """
    student, teacher, where = _examples(student, teacher, where)
    pairs = where[:, None] & where[None, :] & ~jnp.eye(len(where), dtype=bool)

    def distances(x: jax.Array) -> jax.Array:
        # Differences, not a Gram matrix: that cancels far from the origin.
        squares = jnp.sum(jnp.square(x[:, None] - x[None, :]), axis=-1)
        some = pairs & (squares > 0)  # the slope of a root is infinite at 0
        roots = jnp.where(some, jnp.sqrt(jnp.where(some, squares, 1)), 0)
        mean = _mean(roots, pairs, axis=None)
        return roots / jnp.where(mean > 0, mean, 1)

    huber = optax.losses.huber_loss(distances(student), distances(teacher))
    return _mean(huber, pairs, axis=1)


def relational_angle(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Huber loss between cosines of the angles that examples see two others under.

    As `relational_distance`, of triples: it ignores where the features lie, how they are
    turned, and their scale. It takes memory for some times ``batch**2``
    vectors and ``batch**3`` cosines. No gradient reaches the teacher.

    **A value depends on the batch it is in.** Micro-batches, or a batch a device in
    ``shard_map``, change it: that is what the loss is. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are taken as one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no triple, and
        are 0, with a gradient of 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, as the student): the mean over the pairs of two
      other examples, not reduced further. It is 0 where there is no such pair.

    Raises:
      ValueError: if the numbers of examples differ.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> teacher = jnp.array([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]])
      >>> student = jnp.array([[1.0], [2.0], [5.0]])  # in line
      >>> jc.distill.relational_angle(student, teacher).round(6).tolist()
      [0.0, 0.0, 0.0]

    References:
      Park et al., 2019, https://arxiv.org/abs/1904.05068
    """
    student, teacher, where = _examples(student, teacher, where)
    pairs = where[:, None] & where[None, :] & ~jnp.eye(len(where), dtype=bool)

    def cosines(x: jax.Array) -> jax.Array:  # [vertex, one, other]
        directions = unit(x[None, :] - x[:, None])
        return products(directions, directions)

    triples = pairs[:, :, None] & pairs[:, None, :] & pairs[None, :, :]
    huber = optax.losses.huber_loss(cosines(student), cosines(teacher))
    return _mean(huber, triples, axis=(1, 2))


def similarity_preserving(
    student: jax.Array, teacher: jax.Array, *, where: jax.Array | None = None
) -> jax.Array:
    """Squared difference of how similar an example is to all of its batch.

    Similarities are inner products, ``x @ x.T``, with rows scaled to norm 1. It ignores
    rotation and scale of the features, so widths may differ without a projector. No
    gradient reaches the teacher.

    **A value depends on the batch it is in.** Micro-batches, or a batch a device in
    ``shard_map``, change it: that is what the loss is. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are taken as one vector.
      teacher: ``(batch, ...)``, of the same examples.
      where: bool ``(batch,)``: examples that count. The others are in no row and no
        column, and are 0, with a gradient of 0 whatever they hold.

    Returns:
      ``(batch,)``, float32 (or wider, as the student): the mean over a row, not reduced
      further. The mean over the examples is the paper's loss.

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
    student, teacher, where = _examples(student, teacher, where)
    rows = [unit(products(x, x)) for x in (student, teacher)]
    return _mean(jnp.square(rows[0] - rows[1]), where[:, None] & where[None, :], axis=1)


def contrastive(
    student: jax.Array,
    teacher: jax.Array,
    *,
    temperature: float | jax.Array = 0.1,
    where: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of finding an example's teacher among those of the batch (InfoNCE).

    ``-log softmax(cos(student_i, teacher_j) / temperature)`` at ``j = i``. It is like
    CRD, with the batch as negatives: CRD draws thousands of them from a memory bank of
    the whole data set, which is state, and trains a projector of either side; this is a
    function, so a small batch makes an easy task and a weak loss. It is not 0 where the
    two agree. No gradient reaches the teacher.

    **A value depends on the batch it is in.** Micro-batches, or a batch a device in
    ``shard_map``, change it: that is what the loss is. Padding does not.

    Args:
      student: ``(batch, ...)``; the other axes are taken as one vector.
      teacher: ``(batch, ...)``, of the same examples, and as wide.
      temperature: > 0, a number or a traced scalar.
      where: bool ``(batch,)``: examples that count. The others are no negatives, and
        are 0, with a gradient of 0 whatever they hold.

    Returns:
      ``(batch,)``, in nats, float32 (or wider, as the student), not reduced.

    Raises:
      ValueError: if the shapes differ, or the temperature is not positive.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> found = jc.distill.contrastive(jnp.eye(3), 2 * jnp.eye(3))  # log(1 + 2 exp(-10))
      >>> [f"{loss:.6f}" for loss in found]
      ['0.000091', '0.000091', '0.000091']

    References:
      Tian et al., CRD, 2020, https://arxiv.org/abs/1910.10699;
      van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    check_temperature(temperature)
    student, teacher, where = _examples(student, teacher, where)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student embeddings are {student.shape[1]} wide and the teacher's "
            f"{teacher.shape[1]}: bring them to one width by a projector first, a matrix "
            "that is trained with the student."
        )
    logits = products(unit(student), unit(teacher)) / temperature
    # Finite, so that rows that do not count have a softmax, too.
    logits = jnp.where(where[None, :], logits, jnp.finfo(logits.dtype).min)
    return counted(-jnp.diagonal(jax.nn.log_softmax(logits)), where)


def _examples(
    student: jax.Array, teacher: jax.Array, where: jax.Array | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both as (batch, features), of magnitudes up to 1, and what counts."""
    if student.shape[:1] != teacher.shape[:1] or not student.shape:
        raise ValueError(
            f"student {student.shape} and teacher {teacher.shape} are not of the same "
            "examples: the first axis is the batch."
        )
    batch = len(student)
    if where is not None and where.shape != (batch,):
        raise ValueError(f"where {where.shape} is not {(batch,)}, one bool an example.")
    student, teacher = (
        rescaled(x.reshape(batch, -1)) for x in prepared(student, teacher, where)
    )
    return (
        student,
        teacher,
        jnp.ones(batch, bool) if where is None else where.astype(bool),
    )


def _mean(
    x: jax.Array, where: jax.Array, axis: int | tuple[int, ...] | None
) -> jax.Array:
    total = jnp.sum(jnp.where(where, x, 0), axis=axis)
    return total / jnp.maximum(jnp.sum(where, axis=axis), 1)
