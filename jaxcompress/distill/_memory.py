# SPDX-License-Identifier: Apache-2.0
"""CRD: contrastive distillation against a memory bank of embeddings, as explicit state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from .._arguments import check_whole
from .._mesh import on_any_mesh
from .._signatures import name_defaults
from ._features import magnitude, normalize
from ._prepare import bound_gradient, check_temperature, mask_loss


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """The memory bank of ``crd``: embeddings of all examples when last seen. A pytree.

    Attributes:
      student: float32 ``(examples, width)``, rows of norm 1.
      teacher: float32 ``(examples, width)``, rows of norm 1.
      student_log_z: float32 ``[]``: log of NCE's normalization constant for the
        student's embeddings against the teacher's memory; NaN before the first batch.
      teacher_log_z: float32 ``[]``: the same for the teacher's embeddings against the
        student's memory.
    """

    student: jax.Array
    teacher: jax.Array
    student_log_z: jax.Array
    teacher_log_z: jax.Array


def memory(key: jax.Array, examples: int, width: int) -> Memory:
    """Create an empty memory bank for ``crd``, filled with random directions.

    Args:
      key: a PRNG key.
      examples: size of the training set.
      width: width of both embeddings, after their projectors.

    Raises:
      ValueError: if there are fewer than two examples, or the width is below 1.

    Example:
      >>> import jax, jaxcompress as jc
      >>> jc.distill.memory(jax.random.key(0), 100, 8).student.shape
      (100, 8)
    """
    check_whole(examples=examples, width=width)
    if examples < 2 or width < 1:
        raise ValueError(
            "memory needs at least 2 examples and a width of at least 1, got "
            f"examples={examples}, width={width}."
        )
    embeddings = normalize(jax.random.normal(key, (2, examples, width), jnp.float32))
    unset = jnp.full((), jnp.nan, jnp.float32)
    return Memory(embeddings[0], embeddings[1], unset, unset)


def draw_negatives(
    key: jax.Array, ids: jax.Array, examples: int, number: int
) -> jax.Array:
    """Draw negatives for ``crd``: other examples, uniformly and with replacement.

    Args:
      key: a PRNG key.
      ids: integers ``(batch,)``; an example is never its own negative.
      examples: size of the training set.
      number: number of negatives per example; the paper draws 16,384.

    Returns:
      Integers ``(batch, number)``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> ids = jnp.array([0, 1, 1])
      >>> jc.distill.draw_negatives(jax.random.key(0), ids, 2, 3).tolist()
      [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    if examples < 2:
        raise ValueError(
            f"examples must be at least 2 to draw negatives, got {examples}."
        )
    offsets = jax.random.randint(key, (*ids.shape, number), 1, examples, ids.dtype)
    return (ids[:, None] + offsets) % examples


def nce(log_ratios: jax.Array) -> jax.Array:
    """Noise-contrastive loss of ``crd``: classify each pair as positive or noise.

    Args:
      log_ratios: ``(batch, 1 + negatives)``: log of how much likelier a pair is to be
        positive than noise. The first pair of each row is the positive one.

    Returns:
      ``(batch,)``: ``-log h(first) - sum(log(1 - h(others)))``, with ``h`` the sigmoid.

    References:
      Gutmann and Hyvärinen, 2010, https://proceedings.mlr.press/v9/gutmann10a.html
    """
    positive, negatives = log_ratios[:, 0], log_ratios[:, 1:]
    return jax.nn.softplus(-positive) + jnp.sum(jax.nn.softplus(negatives), axis=-1)


def info_nce(log_ratios: jax.Array) -> jax.Array:
    """InfoNCE loss for ``crd``: cross-entropy of picking the positive pair from its row.

    Arguments and result are those of ``nce``. A constant added to a row changes
    nothing, so NCE's normalization constant does not matter.

    References:
      van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    return -jax.nn.log_softmax(log_ratios)[:, 0]


@name_defaults
@on_any_mesh
def crd(
    student: jax.Array,
    teacher: jax.Array,
    memory: Memory,
    ids: jax.Array,
    negatives: jax.Array,
    *,
    temperature: float | jax.Array = 0.07,
    momentum: float | jax.Array = 0.5,
    contrast: Callable[[jax.Array], jax.Array] = nce,
    where: jax.Array | None = None,
) -> tuple[jax.Array, Memory]:
    """Contrastive representation distillation (CRD), with negatives from a memory bank.

    Use it to match embeddings when you can index the training set. The student's
    embedding of an example should be close to the teacher's embedding in the memory,
    and far from those of its negatives. The same holds for the teacher's embedding and
    the student's memory. After the loss, the memory moves toward the new embeddings.

    **No gradient reaches the memory, but one does reach the teacher's embedding**,
    because CRD trains a projector on both sides. If the teacher is among the
    differentiated parameters, stop its gradient before that projector.

    The first batch sets NCE's constant, as in the authors' code, from a memory of
    noise. It never changes afterwards, so it is off as the embeddings evolve.
    ``contrast=info_nce`` has no such constant, and its size does not grow with the
    number of negatives.

    Args:
      student: ``(batch, width)``, after its projector; scaled to norm 1 here.
      teacher: ``(batch, width)``, after its own projector.
      memory: from ``memory`` or from the previous call: carry it in ``model_state``.
      ids: integers ``(batch,)``: indices of these examples in the training set.
      negatives: integers ``(batch, negatives)``: indices of their negatives, from
        ``draw_negatives`` or, with labels, from other classes.
      temperature: T > 0 that divides the cosines.
      momentum: weight of the old embedding in the new one, from 0 to 1.
      contrast: ``nce``, as in the paper, or ``info_nce``, or any function of
        log-ratios.
      where: bool ``(batch,)``: examples that count. The others have loss 0, gradient 0
        whatever they and their ids hold, and do not enter the memory.

    Returns:
      ``(batch,)``, in nats, float32 (or wider, if the student is): the sum of both
      sides, not reduced; and the new memory. All examples are compared with the old
      memory. If an id occurs twice, its last counted embedding is kept. An id outside
      the training set, negative ones included, gives a loss of NaN and a gradient of 0
      for its example, and leaves the memory unchanged. So does an embedding that is not
      finite, with a gradient of NaN.

    Raises:
      ValueError: if the shapes do not match, or temperature or momentum is out of
        range.
      TypeError: if ids are not integers.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> bank = jc.distill.memory(jax.random.key(0), 100, 8)
      >>> ids = jnp.array([3, 50])
      >>> others = jc.distill.draw_negatives(jax.random.key(1), ids, 100, 20)
      >>> embeddings = jnp.ones((2, 8)), jnp.ones((2, 8))
      >>> losses, bank = jc.distill.crd(*embeddings, bank, ids, others)
      >>> losses.shape
      (2,)

    References:
      Tian et al., 2020, https://arxiv.org/abs/1910.10699
    """
    _check_inputs(student, teacher, memory, ids, negatives, where)
    check_temperature(temperature)
    if not isinstance(momentum, jax.Array) and not 0 <= momentum <= 1:
        raise ValueError(f"momentum must be in [0, 1], got {momentum}.")
    examples = len(memory.student)
    is_counted = jnp.ones(len(ids), bool) if where is None else where.astype(bool)
    rows = jnp.concatenate([ids[:, None], negatives], axis=1)
    valid = jnp.all((rows >= 0) & (rows < examples), axis=1)
    usable = is_counted & valid
    rows = jnp.where(usable[:, None], rows, 0)
    wide = jnp.promote_types(student.dtype, jnp.float32)
    # Before any arithmetic: NaN in padding would come back through the gradient.
    student, teacher = (
        jnp.where(usable[:, None], x, 0).astype(wide) for x in (student, teacher)
    )
    # A NaN shows in the loss of its example; it must not stay in the memory.
    is_finite = jnp.isfinite(student) & jnp.isfinite(teacher)
    remembered = usable & is_finite.all(-1)
    student, teacher = (
        normalize(bound_gradient(x, magnitude(x, -1))) for x in (student, teacher)
    )

    def contrast_side(
        x: jax.Array, bank: jax.Array, log_z: jax.Array
    ) -> tuple[jax.Array, ...]:
        """Contrast one network with the memory of the other; return losses and log Z."""
        stored = lax.stop_gradient(bank)[rows].astype(wide)
        scores = jnp.einsum("nkw,nw->nk", stored, x, precision="highest") / temperature
        mean = _log_mean(lax.stop_gradient(scores), remembered)
        initial_log_z = jnp.where(
            remembered.any(), mean + jnp.log(examples), jnp.nan
        ).astype(log_z.dtype)
        log_z = lax.stop_gradient(jnp.where(jnp.isnan(log_z), initial_log_z, log_z))
        noise = jnp.log(negatives.shape[1] / examples)
        # If no example counts, the constant is still NaN.
        ratios = jnp.where(usable[:, None], scores - log_z - noise, 0)
        return contrast(ratios), log_z

    student_loss, student_log_z = contrast_side(
        student, memory.teacher, memory.student_log_z
    )
    teacher_loss, teacher_log_z = contrast_side(
        teacher, memory.student, memory.teacher_log_z
    )
    losses = jnp.where(valid, student_loss + teacher_loss, jnp.nan)

    is_last = remembered & ~jnp.any(
        jnp.triu((ids[:, None] == ids[None, :]) & remembered[None, :], 1), axis=1
    )
    write_ids = jnp.where(
        is_last, ids, examples
    )  # out of range, so the write is dropped

    def update_bank(bank: jax.Array, x: jax.Array) -> jax.Array:
        new = momentum * bank[rows[:, 0]] + (1 - momentum) * lax.stop_gradient(x)
        return bank.at[write_ids].set(normalize(new).astype(bank.dtype), mode="drop")

    return mask_loss(losses, where), Memory(
        update_bank(memory.student, student),
        update_bank(memory.teacher, teacher),
        student_log_z,
        teacher_log_z,
    )


def _log_mean(scores: jax.Array, where: jax.Array) -> jax.Array:
    """Compute the log of the mean of ``exp(scores)`` over counted rows."""
    mask = jnp.broadcast_to(where[:, None], scores.shape)
    total = jax.nn.logsumexp(scores, where=mask)
    return total - jnp.log(jnp.maximum(jnp.sum(mask), 1))


def _check_inputs(
    student: jax.Array,
    teacher: jax.Array,
    memory: Memory,
    ids: jax.Array,
    negatives: jax.Array,
    where: jax.Array | None,
) -> None:
    for name, x in (("ids", ids), ("negatives", negatives)):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"{name} must be integers, got dtype {x.dtype}.")
    if ids.ndim != 1:
        raise ValueError(
            f"ids must have shape (batch,), one per example, got {ids.shape}."
        )
    embeddings = (len(ids), memory.student.shape[-1])
    if student.shape != embeddings or teacher.shape != embeddings:
        raise ValueError(
            f"student and teacher must have shape {embeddings} (ids, width of the memory), "
            f"got {student.shape} and {teacher.shape}. Apply a projector to each: a matrix "
            "trained with the student."
        )
    if negatives.ndim != 2 or len(negatives) != len(ids) or not negatives.shape[1]:
        raise ValueError(
            f"negatives must have shape ({len(ids)}, at least 1), got {negatives.shape}."
        )
    if where is not None and where.shape != ids.shape:
        raise ValueError(
            f"where must have shape {ids.shape}, one bool per example, got {where.shape}."
        )
