# SPDX-License-Identifier: Apache-2.0
"""Rounding other than to the nearest, passed as ``rounding=``: stochastic or learned."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._arguments import check_key
from .._compressor import Learned
from ..formats import ToInteger
from ..numerics import ste

__all__ = [
    "DrawsState",
    "Rounding",
    "learned",
    "stochastic",
]


class Rounding(NamedTuple):
    """Define a rounding rule with a state by three pure functions.

    Attributes:
      init: ``(name, shape) -> state``. For a weight, its path and shape; for an
        activation, the name of its site and None.
      advance: ``state -> state``, called after each update or observed batch.
      read: ``(state, shape) -> to_integer``. The result rounds values of that shape to
        one of the two neighboring integers.
    """

    init: Callable[[str, tuple[int, ...] | None], Any]
    advance: Callable[[Any], Any]
    read: Callable[[Any, tuple[int, ...]], ToInteger]


class DrawsState(NamedTuple):
    """State of ``stochastic``."""

    salt: jax.Array  # uint32 []: hash of the name
    count: jax.Array  # uint32 []: updates so far


def stochastic(key: jax.Array) -> Rounding:
    """Round up or down at random, so that the expected result is the value itself.

    Every update draws new random numbers; the view and the exported codes use the same
    draws. Binary formats use the probability of BinaryConnect. In half precision, levels
    are themselves rounded and lie slightly off the grid, so quantizing a view once more may
    move a value by one level.

    Args:
      key: PRNG key from ``jax.random.key``; every leaf and every update gets its own draws.

    Example:
      >>> import jax, jaxcompress as jc
      >>> rounding = jc.quantize.rounding.stochastic(jax.random.key(0))
      >>> int4 = jc.weight_quantization(bits=4, rounding=rounding)

    References:
      Gupta et al., 2015, https://arxiv.org/abs/1502.02551; Courbariaux et al., 2015,
      https://arxiv.org/abs/1511.00363
    """
    check_key(key)

    def init(name: str, shape: tuple[int, ...] | None) -> DrawsState:
        del shape
        salt = jnp.uint32(zlib.crc32(name.encode()))
        return DrawsState(salt, jnp.zeros((), jnp.uint32))

    def read(state: DrawsState, shape: tuple[int, ...]) -> ToInteger:
        draw_key = jax.random.fold_in(jax.random.fold_in(key, state.salt), state.count)
        threshold = jax.random.uniform(draw_key, shape)

        def to_integer(x: jax.Array) -> jax.Array:
            # Not floor(x + threshold): that sum rounds up next to integers.
            down = jnp.floor(x)
            return down + (threshold < x - down)

        return to_integer

    return Rounding(init, lambda state: state._replace(count=state.count + 1), read)


def learned() -> Rounding:
    """Learn the rounding direction of each weight during training, as in AdaRound.

    Training starts from the nearest level. One variable per weight (``Learned``) shifts
    the fraction before rounding, through AdaRound's rectified sigmoid. The forward pass
    always uses the final rounding decision. Hold the scale constant (``held``) while the
    rounding learns. To calibrate on a few batches without training, use
    ``adaround_quantization``.

    Raises:
      ValueError: in ``init``, for an activation.

    References:
      Nagel et al., 2020, https://arxiv.org/abs/2004.10568
    """

    def init(name: str, shape: tuple[int, ...] | None) -> Learned:
        if shape is None:
            raise ValueError(
                f"learned() needs one variable per value, so it is for weights only, got "
                f"the activation {name!r}. Use stochastic(key) or rounding=None."
            )
        return Learned(jnp.zeros(shape, jnp.float32))

    def read(state: Learned, shape: tuple[int, ...]) -> ToInteger:
        del shape

        def to_integer(x: jax.Array) -> jax.Array:
            shift = jnp.clip(1.2 * jax.nn.sigmoid(state.value) - 0.1, 0, 1) - 0.5
            down = lax.stop_gradient(jnp.floor(x))
            fraction = (lax.stop_gradient(x) - down) + shift.astype(x.dtype)
            # Ties go to the even integer, as in rounding to the nearest.
            tie = (fraction == 0.5) & (down % 2 == 0)
            decision = ((fraction >= 0.5) & ~tie).astype(x.dtype)
            return down + ste(shift.astype(x.dtype), decision)

        return to_integer

    return Rounding(init, lambda state: state, read)
