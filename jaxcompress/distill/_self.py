# SPDX-License-Identifier: Apache-2.0
"""Teachers that are the network itself, averaged or as it was before."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from .._compressor import Compressor, PyTree, Teacher


class _State(NamedTuple):
    teacher: Teacher
    count: jax.Array  # int32 []: updates done


def ema_teacher(decay: float | optax.Schedule = 0.999) -> Compressor:
    """Keep the moving average of the parameters, as a teacher of the network itself.

    A compressor that changes nothing. ``train_step`` hands the average to the loss as
    ``teacher=``; it is in the state, so checkpoints have it, and no gradient reaches it.
    In a chain it averages what it sees: before a quantizer the float parameters, which
    then teach the rounded network; after it, the rounded ones.

    Args:
      decay: how much of the average is kept in an update, in [0, 1], or a schedule of it.

    Returns:
      A compressor. The average starts as the parameters themselves, and is float32 or
      wider: in bfloat16 the small steps would be rounded away. What is no float is
      copied.

    Raises:
      ValueError: if the decay is out of range.

    Example:
      >>> import jax.numpy as jnp, optax, jaxcompress as jc
      >>> def loss_fn(params, x, *, teacher):
      ...     soft = jc.distill.kl(x @ params["w"], x @ teacher["w"]).mean()
      ...     return soft + jnp.sum(params["w"])
      >>> init, step = jc.train_step(loss_fn, optax.sgd(1.0), jc.distill.ema_teacher(0.5))
      >>> state, _ = step(init({"w": jnp.zeros((3, 2))}), jnp.ones((4, 3)))
      >>> float(state.params["w"][0, 0]), float(state.compression.teacher.params["w"][0, 0])
      (-1.0, -0.5)

    References:
      Tarvainen and Valpola, 2017, https://arxiv.org/abs/1703.01780
    """
    if callable(decay):
        return _kept(decay)
    if not 0 <= decay <= 1:
        raise ValueError(f"decay={decay} is not in [0, 1].")
    return _kept(optax.constant_schedule(decay))


def earlier_teacher(every: int) -> Compressor:
    """Keep the parameters of some steps ago, as a teacher of the network itself.

    As `ema_teacher`, with a copy instead of an average: update number ``every``, and each
    multiple of it, takes a new one. Until then the teacher is the network at the start.

    Args:
      every: updates from one copy to the next, 1 or more.

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
    if every < 1:
        raise ValueError(f"every={every} is below 1.")
    return _kept(lambda count: jnp.where(jnp.mod(count, every) == 0, 0.0, 1.0))


def _kept(decay: optax.Schedule) -> Compressor:
    def init(params: PyTree) -> _State:
        wide = jax.tree.map(_wide, params)
        return _State(Teacher(wide), jnp.zeros((), jnp.int32))

    def update(params: PyTree, state: _State, **extras: Any) -> tuple[PyTree, _State]:
        del extras
        count = state.count + 1
        moved = jax.tree.map(
            lambda new, old: _mixed(new, old, decay(count)),
            params,
            state.teacher.params,
        )
        return params, _State(Teacher(moved), count)

    return Compressor(init=init, apply=lambda params, state: params, update=update)


def _wide(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _mixed(new: jax.Array, old: jax.Array, decay: Any) -> jax.Array:
    if not jnp.issubdtype(new.dtype, jnp.floating):
        return new
    decay = jnp.asarray(decay, old.dtype)
    mixed = decay * old + (1 - decay) * new.astype(old.dtype)
    # An average that is not asked for would bring 0 * inf in.
    return jnp.where(decay == 1, old, mixed)
