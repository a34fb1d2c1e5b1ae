# SPDX-License-Identifier: Apache-2.0
"""Self-distillation: teachers that are earlier or averaged copies of the network."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._arguments import check_whole
from .._compressor import Compressor, PyTree, Teacher


class _TeacherState(NamedTuple):
    teacher: Teacher
    count: jax.Array  # int32 []: updates done


def ema_teacher(decay: float | optax.Schedule = 0.999) -> Compressor:
    """Keep a moving average of the parameters as a teacher of the network itself.

    It is a compressor that changes nothing. ``train_step`` passes the average to the
    loss as ``teacher=``. The average is part of the state, so checkpoints contain it,
    and no gradient reaches it. In a chain it averages the parameters at its position:
    before a quantizer, the float ones, which then teach the rounded network; after it,
    the rounded ones.

    Args:
      decay: weight of the old average in each update, in [0, 1], or a schedule of it.

    Returns:
      A compressor. The average starts from the parameters and is float32 or wider:
      bfloat16 would round small steps away. Leaves that are not float are copied.

    Raises:
      ValueError: if the decay is out of range.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> def loss_fn(params, x, *, teacher):
      ...     soft = jc.distill.kl(x @ params["w"], x @ teacher["w"]).mean()
      ...     return soft + jnp.sum(params["w"])
      >>> init, step = jc.train_step(loss_fn, optax.sgd(1.0), jc.distill.ema_teacher(0.5))
      >>> state, _ = step(init({"w": jnp.zeros((3, 2))}), jnp.ones((4, 3)))
      >>> teacher = state.compression.teacher.params
      >>> float(state.params["w"][0, 0]), float(teacher["w"][0, 0])
      (-1.0, -0.5)

    References:
      Tarvainen and Valpola, 2017, https://arxiv.org/abs/1703.01780
    """
    if callable(decay):
        return _track_teacher(decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay must be in [0, 1], got {decay}.")
    return _track_teacher(optax.constant_schedule(decay))


def earlier_teacher(every: int) -> Compressor:
    """Keep the parameters of some steps ago as a teacher of the network itself.

    Like `ema_teacher`, with a copy instead of an average. It takes a new copy at every
    multiple of ``every`` updates. Until the first one, the teacher is the initial
    network.

    Args:
      every: updates between copies, 1 or more.

    Raises:
      ValueError: if ``every`` is below 1.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> c = jc.distill.earlier_teacher(every=2)
      >>> state = c.init({"w": jnp.array(0.0)})
      >>> for value in (1.0, 2.0, 3.0):
      ...     _, state = c.update({"w": jnp.array(value)}, state)
      >>> float(state.teacher.params["w"])
      2.0

    References:
      Yang et al., Snapshot distillation, 2019, https://arxiv.org/abs/1812.00123
    """
    check_whole(every=every)
    if every < 1:
        raise ValueError(f"every must be at least 1, got {every}.")
    return _track_teacher(lambda count: jnp.where(jnp.mod(count, every) == 0, 0.0, 1.0))


def _track_teacher(decay: optax.Schedule) -> Compressor:
    def init(params: PyTree) -> _TeacherState:
        teacher_params = jax.tree.map(_widen, params)
        return _TeacherState(Teacher(teacher_params), jnp.zeros((), jnp.int32))

    def update(
        params: PyTree, state: _TeacherState, **extras: Any
    ) -> tuple[PyTree, _TeacherState]:
        del extras
        count = state.count + 1
        teacher_params = jax.tree.map(
            lambda new, old: _mix(new, old, decay(count)),
            params,
            state.teacher.params,
        )
        return params, _TeacherState(Teacher(teacher_params), count)

    return Compressor(init=init, apply=lambda params, state: params, update=update)


def _widen(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _mix(new: jax.Array, old: jax.Array, decay: Any) -> jax.Array:
    if not jnp.issubdtype(new.dtype, jnp.floating):
        return new
    decay = jnp.asarray(decay, old.dtype)
    mixed = decay * old + (1 - decay) * new.astype(old.dtype)
    # Keep the old value at decay 1: 0 * inf would be NaN.
    return jnp.where(decay == 1, old, mixed)
