# SPDX-License-Identifier: Apache-2.0
"""CRD: contrast with a memory of the embeddings of every example, as explicit state."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from ._features import unit
from ._prepare import check_temperature, counted


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Memory:
    """Embeddings of all examples, as they were when last seen; a pytree.

    Attributes:
      student: float32 ``(examples, width)``, rows of norm 1.
      teacher: float32 ``(examples, width)``, rows of norm 1.
      student_log_z: float32 ``[]``: logarithm of NCE's normalization constant of the
        student's embeddings against the teacher's memory; NaN until a batch is seen.
      teacher_log_z: float32 ``[]``: that of the teacher's against the student's memory.
    """

    student: jax.Array
    teacher: jax.Array
    student_log_z: jax.Array
    teacher_log_z: jax.Array


def memory(key: jax.Array, examples: int, width: int) -> Memory:
    """A memory that has seen nothing: directions at random.

    Args:
      key: a PRNG key.
      examples: size of the training set.
      width: of the embeddings of both networks, behind their projectors.

    Raises:
      ValueError: if there are fewer than two examples, or no width.

    Example:
      >>> import jax, jaxcompress as jc
      >>> jc.distill.memory(jax.random.key(0), 100, 8).student.shape
      (100, 8)
    """
    if examples < 2 or width < 1:
        raise ValueError(
            f"{examples} examples of width {width}: a contrast takes two examples or "
            "more, and a width of 1 or more."
        )
    both = unit(jax.random.normal(key, (2, examples, width), jnp.float32))
    unknown = jnp.full((), jnp.nan, jnp.float32)
    return Memory(both[0], both[1], unknown, unknown)


def draw_negatives(
    key: jax.Array, ids: jax.Array, examples: int, number: int
) -> jax.Array:
    """Other examples for each example, uniformly and with replacement.

    Args:
      key: a PRNG key.
      ids: integers ``(batch,)``, which are never among their own negatives.
      examples: size of the training set.
      number: of negatives an example; the paper draws 16,384.

    Returns:
      Integers ``(batch, number)``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> ids = jnp.array([0, 1, 1])
      >>> jc.distill.draw_negatives(jax.random.key(0), ids, 2, 3).tolist()
      [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    """
    if examples < 2:
        raise ValueError(f"{examples} examples have no negatives.")
    steps = jax.random.randint(key, (*ids.shape, number), 1, examples, ids.dtype)
    return (ids[:, None] + steps) % examples


def nce(log_ratios: jax.Array) -> jax.Array:
    """Cost of telling the pair of one example from those that are noise, one by one.

    Args:
      log_ratios: ``(batch, 1 + negatives)``: logarithm of how much likelier a pair is
        to be one example than to be noise; the first of a row is one example.

    Returns:
      ``(batch,)``: ``-log h(first) - sum(log(1 - h(others)))``, ``h`` the sigmoid.

    References:
      Gutmann and Hyvärinen, 2010, https://proceedings.mlr.press/v9/gutmann10a.html
    """
    first, others = log_ratios[:, 0], log_ratios[:, 1:]
    return jax.nn.softplus(-first) + jnp.sum(jax.nn.softplus(others), axis=-1)


def info_nce(log_ratios: jax.Array) -> jax.Array:
    """Cross-entropy of finding the pair of one example in its row.

    Arguments and result are those of ``nce``. A constant that is added to a row changes
    nothing, and so does NCE's normalization constant.

    References:
      van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """
    return -jax.nn.log_softmax(log_ratios)[:, 0]


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
    """Contrastive representation distillation, with negatives out of a memory.

    The student's embedding of an example is to be close to what the memory holds of the
    teacher's for it, and far from those of its negatives; and the teacher's embedding in
    the same way to the student's memory. Afterwards the memory moves to what was seen.

    **No gradient reaches the memory; one does reach the teacher's embedding**, since CRD
    trains a projector on either side. Stop it in front of that projector, where the
    teacher is among what is differentiated.

    NCE's constant is set by the first batch, as in the authors' code, from a memory that
    holds noise, and never again; so it is off by whatever embeddings do later.
    ``contrast=info_nce`` has no such constant, and its size does not grow with the
    number of negatives.

    Args:
      student: ``(batch, width)``, behind its projector; scaled to norm 1 here.
      teacher: ``(batch, width)``, behind its own.
      memory: from ``memory``, or from the call before: carry it in ``model_state``.
      ids: integers ``(batch,)``: which examples of the training set these are.
      negatives: integers ``(batch, negatives)``: which ones they are told from, such as
        ``draw_negatives`` or, with labels, ones of other classes.
      temperature: T > 0 that cosines are divided by.
      momentum: how much of the old embedding is kept, from 0 to 1.
      contrast: ``nce``, the paper's, or ``info_nce``; any function of log-ratios.
      where: bool ``(batch,)``: examples that count. The others are 0, with a gradient of
        0 whatever they and their ids hold, and the memory does not see them.

    Returns:
      ``(batch,)``, in nats, float32 (or wider, as the student): the sum of both sides,
      not reduced. And the new memory: all examples are compared with the memory of
      before. Of an id that is there twice, the last one that counts is kept. An id that
      is in no training set, negative ones included, makes the loss of its example NaN,
      a gradient of 0, and no change of the memory.

    Raises:
      ValueError: if the shapes do not fit, or temperature or momentum is out of range.
      TypeError: if ids are no integers.

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
    _check(student, teacher, memory, ids, negatives, where)
    check_temperature(temperature)
    if not isinstance(momentum, jax.Array) and not 0 <= momentum <= 1:
        raise ValueError(f"momentum={momentum} is not from 0 to 1.")
    examples = len(memory.student)
    counts = jnp.ones(len(ids), bool) if where is None else where.astype(bool)
    rows = jnp.concatenate([ids[:, None], negatives], axis=1)
    known = jnp.all((rows >= 0) & (rows < examples), axis=1)
    good = counts & known
    rows = jnp.where(good[:, None], rows, 0)
    wide = jnp.promote_types(student.dtype, jnp.float32)
    # Before all arithmetic: a NaN in padding would come back through a gradient.
    student, teacher = (
        unit(jnp.where(good[:, None], x, 0).astype(wide)) for x in (student, teacher)
    )

    def side(x: jax.Array, bank: jax.Array, log_z: jax.Array) -> tuple[jax.Array, ...]:
        """Losses of one network against the memory of the other, and the constant."""
        stored = lax.stop_gradient(bank)[rows].astype(wide)
        scores = jnp.einsum("nkw,nw->nk", stored, x, precision="highest") / temperature
        first = _log_mean(lax.stop_gradient(scores), good) + jnp.log(examples)
        first = jnp.where(good.any(), first, jnp.nan).astype(log_z.dtype)
        log_z = lax.stop_gradient(jnp.where(jnp.isnan(log_z), first, log_z))
        noise = jnp.log(negatives.shape[1] / examples)
        # Without an example that counts the constant is still NaN.
        ratios = jnp.where(good[:, None], scores - log_z - noise, 0)
        return contrast(ratios), log_z

    of_student, student_log_z = side(student, memory.teacher, memory.student_log_z)
    of_teacher, teacher_log_z = side(teacher, memory.student, memory.teacher_log_z)
    losses = jnp.where(known, of_student + of_teacher, jnp.nan)

    last = good & ~jnp.any(
        jnp.triu((ids[:, None] == ids[None, :]) & good[None, :], 1), axis=1
    )
    places = jnp.where(last, ids, examples)  # there is none, so that it is dropped

    def moved(bank: jax.Array, x: jax.Array) -> jax.Array:
        new = momentum * bank[rows[:, 0]] + (1 - momentum) * lax.stop_gradient(x)
        return bank.at[places].set(unit(new).astype(bank.dtype), mode="drop")

    return counted(losses, where), Memory(
        moved(memory.student, student),
        moved(memory.teacher, teacher),
        student_log_z,
        teacher_log_z,
    )


def _log_mean(scores: jax.Array, where: jax.Array) -> jax.Array:
    """Logarithm of the mean of ``exp(scores)`` over rows that count."""
    counted = jnp.broadcast_to(where[:, None], scores.shape)
    total = jax.nn.logsumexp(scores, where=counted)
    return total - jnp.log(jnp.maximum(jnp.sum(counted), 1))


def _check(
    student: jax.Array,
    teacher: jax.Array,
    memory: Memory,
    ids: jax.Array,
    negatives: jax.Array,
    where: jax.Array | None,
) -> None:
    for name, x in (("ids", ids), ("negatives", negatives)):
        if not jnp.issubdtype(x.dtype, jnp.integer):
            raise TypeError(f"{name} of dtype {x.dtype}: integers are expected.")
    if ids.ndim != 1:
        raise ValueError(f"ids {ids.shape} are not (batch,), one an example.")
    embeddings = (len(ids), memory.student.shape[-1])
    if student.shape != embeddings or teacher.shape != embeddings:
        raise ValueError(
            f"student {student.shape} and teacher {teacher.shape} are not both "
            f"{embeddings}: as many as ids, and as wide as the memory. Bring them there "
            "by a projector each, a matrix that is trained with the student."
        )
    if negatives.ndim != 2 or len(negatives) != len(ids) or not negatives.shape[1]:
        raise ValueError(
            f"negatives {negatives.shape} are not ({len(ids)}, one or more)."
        )
    if where is not None and where.shape != ids.shape:
        raise ValueError(
            f"where {where.shape} is not {ids.shape}, one bool an example."
        )
