# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on attention: where networks look, how positions relate."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._features import prepared, products, rescaled, unit


def attention_transfer(
    student: jax.Array,
    teacher: jax.Array,
    *,
    channel_axis: int = -1,
    power: float = 2,
    where: jax.Array | None = None,
) -> jax.Array:
    """Squared difference of where the two networks look: maps of their activity.

    A map is ``sum(abs(features)**power)`` over the channels, one number a position,
    scaled to norm 1 over the positions of its example. The loss is the mean over the
    positions, as in the authors' code; the weight that they give it, 1000, is for this
    mean. Channels need no projector. No gradient reaches the teacher.

    Args:
      student: ``(batch, *positions, channels)``, the channels at ``channel_axis``.
      teacher: the same positions; the number of channels may differ.
      channel_axis: the axis that is summed over, of both.
      power: at least 1; larger ones give more weight to the strongest channels.
      where: bool ``(batch,)``, or ``(batch, *positions)`` where parts of an example are
        padding. What does not count is in no map, and has a gradient of 0 whatever it
        holds; an example without a position that counts is 0.

    Returns:
      ``(batch,)``, float32 (or wider, as the student), not reduced.

    Raises:
      ValueError: if the positions differ, or there are none, or the power is below 1.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student, teacher = jnp.ones((2, 4, 4, 8)), 3 * jnp.ones((2, 4, 4, 16))
      >>> jc.distill.attention_transfer(student, teacher).tolist()
      [0.0, 0.0]

    References:
      Zagoruyko and Komodakis, 2017, https://arxiv.org/abs/1612.03928
    """
    if power < 1:
        raise ValueError(f"power={power} is below 1: gradients at zero are infinite.")
    student, teacher = (
        _channels_last(x, channel_axis, of)
        for x, of in ((student, "student"), (teacher, "teacher"))
    )
    positions = student.shape[:-1]
    if positions != teacher.shape[:-1]:
        raise ValueError(
            f"student maps {positions} and teacher maps {teacher.shape[:-1]} differ, as "
            "(batch, *positions): pool the larger one, or resize the smaller."
        )
    if where is not None and where.shape not in (positions, positions[:1]):
        raise ValueError(
            f"where {where.shape} is neither {positions[:1]}, one bool an example, nor "
            f"{positions}, one a position."
        )
    student, teacher = prepared(student, teacher, where)
    squares = jnp.square(_map(student, power) - _map(teacher, power))
    if where is None:
        return squares.mean(-1)
    counted = where.reshape(where.shape + (1,) * (len(positions) - where.ndim))
    counted = jnp.broadcast_to(counted, positions).reshape(squares.shape)
    return squares.sum(-1) / jnp.maximum(counted.sum(-1), 1)


def attention_relations(
    student: jax.Array,
    teacher: jax.Array,
    *,
    heads: int,
    where: jax.Array | None = None,
) -> jax.Array:
    """Divergence between relations of positions: self-attention of one kind of vector.

    The queries (or keys, or values) of all heads of a layer, side by side, are cut anew
    into relation heads, and ``softmax(x @ x.T / sqrt(head width))`` says how positions
    relate. So widths and numbers of heads may differ. For the paper's loss, add this for
    queries, keys and values. No gradient reaches the teacher.

    A value depends on the other positions of its sequence, but not on the batch, and not
    on padding.

    Args:
      student: ``(..., positions, student width)``.
      teacher: ``(..., positions, teacher width)``.
      heads: number of relation heads; both widths are multiples of it.
      where: bool ``(..., positions)``: positions that count. The others are in no
        relation, and are 0, with a gradient of 0 whatever they hold.

    Returns:
      ``(..., positions)``, in nats, float32 (or wider, as the student): the mean over
      relation heads, not reduced further.

    Raises:
      ValueError: if the positions differ, or heads do not divide the widths.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student, teacher = jnp.ones((1, 3, 8)), jnp.zeros((1, 3, 16))  # all alike
      >>> jc.distill.attention_relations(student, teacher, heads=4).tolist()
      [[0.0, 0.0, 0.0]]

    References:
      Wang et al., MiniLMv2, 2021, https://arxiv.org/abs/2012.15828
    """
    positions = student.shape[:-1]
    if positions != teacher.shape[:-1] or not positions:
        raise ValueError(
            f"student {student.shape} and teacher {teacher.shape} are not at the same "
            "positions, as (..., positions, width): only the last axis may differ."
        )
    if heads < 1 or student.shape[-1] % heads or teacher.shape[-1] % heads:
        raise ValueError(
            f"heads={heads} does not divide both widths, {student.shape[-1]} and "
            f"{teacher.shape[-1]}."
        )
    if where is not None and where.shape != positions:
        raise ValueError(
            f"where {where.shape} is not {positions}, one bool a position."
        )
    student, teacher = prepared(student, teacher, where)
    counts = jnp.ones(positions, bool) if where is None else where.astype(bool)
    pairs = counts[..., None, :, None] & counts[..., None, None, :]

    def relations(x: jax.Array) -> jax.Array:  # logarithms, [..., head, one, other]
        x = jnp.moveaxis(x.reshape(*positions, heads, -1), -2, -3)
        logits = products(x, x) / x.shape[-1] ** 0.5
        # A finite floor: a row without a position that counts has a softmax, too.
        logits = jnp.where(pairs, logits, jnp.finfo(logits.dtype).min)
        # Off the pairs both are 0, and so is their difference.
        return jnp.where(pairs, jax.nn.log_softmax(logits), 0)

    log_p, log_q = relations(teacher), relations(student)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return jnp.mean(divergence, axis=-2)


def _map(x: jax.Array, power: float) -> jax.Array:
    x = rescaled(x, tuple(range(1, x.ndim)))
    activity = jnp.mean(jnp.abs(x) ** power, axis=-1)
    return unit(activity.reshape(len(x), -1))


def _channels_last(x: jax.Array, axis: int, of: str) -> jax.Array:
    if x.ndim < 3:
        raise ValueError(
            f"{of} features {x.shape} have no positions: attention transfer compares "
            "maps of (batch, *positions, channels). For vectors there is `hint`."
        )
    if not -x.ndim < axis < x.ndim or axis == 0:
        raise ValueError(
            f"channel_axis={axis} is not an axis of {x.shape} behind the batch."
        )
    return jnp.moveaxis(x, axis, -1)
