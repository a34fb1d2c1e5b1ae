# SPDX-License-Identifier: Apache-2.0
"""Distillation losses on attention maps and on relations between positions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._arguments import check_whole
from .._mesh import on_any_mesh
from ._features import (
    inner_products,
    magnitude,
    normalize,
    prepare,
    rescale,
)
from ._prepare import bound_gradient


@on_any_mesh
def attention_transfer(
    student: jax.Array,
    teacher: jax.Array,
    *,
    channel_axis: int = -1,
    power: float = 2,
    where: jax.Array | None = None,
) -> jax.Array:
    """Match spatial activity maps of student and teacher features, for convolutional nets.

    A map is ``sum(abs(features)**power)`` over the channels: one number per position,
    scaled to norm 1 over the positions of its example. The loss is the mean squared
    difference of the maps over the positions, as in the authors' code; their loss
    weight of 1000 is for this mean. Channels need no projector. No gradient reaches the
    teacher.

    Args:
      student: ``(batch, *positions, channels)``, the channels at ``channel_axis``.
      teacher: the same positions; the number of channels may differ.
      channel_axis: the axis to sum over, in both.
      power: at least 1; larger values give more weight to the strongest channels.
      where: bool ``(batch,)``, or ``(batch, *positions)`` if parts of an example are
        padding. Masked positions do not enter the maps, and their gradient is 0
        whatever they hold. The loss of an example without counted positions is 0.

    Returns:
      ``(batch,)``, float32 (or wider, if the student is), not reduced.

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
        raise ValueError(
            f"power must be at least 1, or gradients at zero are infinite; got {power}."
        )
    student, teacher = (
        _move_channels_last(x, channel_axis, name)
        for x, name in ((student, "student"), (teacher, "teacher"))
    )
    positions = student.shape[:-1]
    if positions != teacher.shape[:-1]:
        raise ValueError(
            "student and teacher must have the same (batch, *positions), got "
            f"{positions} and {teacher.shape[:-1]}. Pool the larger map or resize the "
            "smaller one."
        )
    if where is not None and where.shape not in (positions, positions[:1]):
        raise ValueError(
            f"where must have shape {positions[:1]} (one bool per example) or {positions} "
            f"(one per position), got {where.shape}."
        )
    student, teacher = prepare(student, teacher, where)
    squares = jnp.square(_activity_map(student, power) - _activity_map(teacher, power))
    if where is None:
        return squares.mean(-1)
    is_counted = where.reshape(where.shape + (1,) * (len(positions) - where.ndim))
    is_counted = jnp.broadcast_to(is_counted, positions).reshape(squares.shape)
    return squares.sum(-1) / jnp.maximum(is_counted.sum(-1), 1)


@on_any_mesh
def attention_relations(
    student: jax.Array,
    teacher: jax.Array,
    *,
    heads: int,
    where: jax.Array | None = None,
) -> jax.Array:
    """Match how positions relate to each other, for transformers of any widths (MiniLMv2).

    The loss is a KL divergence between self-attention maps of one kind of vector. The
    queries (or keys, or values) of all heads of a layer, concatenated, are split again
    into relation heads, and ``softmax(x @ x.T / sqrt(head width))`` describes how
    positions relate. So widths and numbers of heads may differ. The paper's loss is the
    sum over queries, keys and values. No gradient reaches the teacher.

    A value depends on the other positions of its sequence, but not on the rest of the
    batch or on padding.

    Args:
      student: ``(..., positions, student width)``.
      teacher: ``(..., positions, teacher width)``.
      heads: number of relation heads; it must divide both widths.
      where: bool ``(..., positions)``: positions that count. The others do not enter
        any relation; their loss is 0, and their gradient is 0 whatever they hold.

    Returns:
      ``(..., positions)``, in nats, float32 (or wider, if the student is): the mean
      over relation heads, not reduced further.

    Raises:
      ValueError: if the positions differ, or heads do not divide the widths.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> student, teacher = jnp.ones((1, 3, 8)), jnp.zeros((1, 3, 16))  # positions equal
      >>> jc.distill.attention_relations(student, teacher, heads=4).tolist()
      [[0.0, 0.0, 0.0]]

    References:
      Wang et al., MiniLMv2, 2021, https://arxiv.org/abs/2012.15828
    """
    positions = student.shape[:-1]
    if positions != teacher.shape[:-1] or not positions:
        raise ValueError(
            "student and teacher must be (..., positions, width) with the same positions, "
            f"got {student.shape} and {teacher.shape}. Only the last axis may differ."
        )
    check_whole(heads=heads)
    if heads < 1 or student.shape[-1] % heads or teacher.shape[-1] % heads:
        raise ValueError(
            f"heads must be at least 1 and divide both widths, {student.shape[-1]} and "
            f"{teacher.shape[-1]}, got heads={heads}."
        )
    if where is not None and where.shape != positions:
        raise ValueError(
            f"where must have shape {positions}, one bool per position, got {where.shape}."
        )
    student, teacher = prepare(student, teacher, where)
    is_counted = jnp.ones(positions, bool) if where is None else where.astype(bool)
    pairs = is_counted[..., None, :, None] & is_counted[..., None, None, :]

    def log_relations(x: jax.Array) -> jax.Array:  # [..., head, query, key]
        x = jnp.moveaxis(x.reshape(*positions, heads, -1), -2, -3)
        logits = inner_products(x, x) / x.shape[-1] ** 0.5
        # A finite floor, so that fully masked rows still have a softmax.
        logits = jnp.where(pairs, logits, jnp.finfo(logits.dtype).min)
        # 0 for masked pairs, in student and teacher: their difference is 0.
        return jnp.where(pairs, jax.nn.log_softmax(logits), 0)

    log_p, log_q = log_relations(teacher), log_relations(student)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)
    return jnp.mean(divergence, axis=-2)


def _activity_map(x: jax.Array, power: float) -> jax.Array:
    axes = tuple(range(1, x.ndim))
    x = rescale(bound_gradient(x, magnitude(x, axes)), axes)
    activity = jnp.mean(jnp.abs(x) ** power, axis=-1)
    return normalize(activity.reshape(len(x), -1))


def _move_channels_last(x: jax.Array, axis: int, name: str) -> jax.Array:
    if x.ndim < 3:
        raise ValueError(
            f"{name} features must be (batch, *positions, channels), got {x.shape}. For "
            "vectors, use `hint`."
        )
    if not -x.ndim < axis < x.ndim or axis == 0:
        raise ValueError(
            f"channel_axis must be an axis of {x.shape} after the batch axis, got {axis}."
        )
    return jnp.moveaxis(x, axis, -1)
