# SPDX-License-Identifier: Apache-2.0
"""Rounding with a state: at random, or learned."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

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
    """A way to round that has a state: three pure functions.

    Attributes:
      init: ``(name, shape) -> state`` of a weight by its path and shape, or of an
        activation by the name of its point and None.
      advance: ``state -> state``, after each update or observed batch.
      read: ``(state, shape) -> to_integer``; the result rounds values of that shape to
        one of the two whole numbers beside them.
    """

    init: Callable[[str, tuple[int, ...] | None], Any]
    advance: Callable[[Any], Any]
    read: Callable[[Any, tuple[int, ...]], ToInteger]


class DrawsState(NamedTuple):
    """State of ``stochastic``."""

    salt: jax.Array  # uint32 []: of the name
    count: jax.Array  # uint32 []: updates so far


def stochastic(key: jax.Array) -> Rounding:
    """Up or down at random, so that the mean is the value itself.

    Drawn anew in every update; the view and what ships are drawn alike. Signs are drawn
    with the probability of BinaryConnect. Half-precision levels lie beside the grid by
    their own rounding, so a view that is quantized once more may move by a level there.

    Args:
      key: of ``jax.random.key``; every leaf and every update has draws of its own.

    Example:
      >>> import jax, jaxcompress as jc
      >>> rounding = jc.quantize.rounding.stochastic(jax.random.key(0))
      >>> int4 = jc.weight_quantization(bits=4, rounding=rounding)

    References:
      Gupta et al., 2015, https://arxiv.org/abs/1502.02551; Courbariaux et al., 2015,
      https://arxiv.org/abs/1511.00363
    """

    def init(name: str, shape: tuple[int, ...] | None) -> DrawsState:
        del shape
        salt = jnp.uint32(zlib.crc32(name.encode()))
        return DrawsState(salt, jnp.zeros((), jnp.uint32))

    def read(state: DrawsState, shape: tuple[int, ...]) -> ToInteger:
        drawn = jax.random.fold_in(jax.random.fold_in(key, state.salt), state.count)
        share = jax.random.uniform(drawn, shape)

        def to_integer(x: jax.Array) -> jax.Array:
            # Not of a sum, which is rounded up next to whole numbers.
            down = jnp.floor(x)
            return down + (share < x - down)

        return to_integer

    return Rounding(init, lambda state: state._replace(count=state.count + 1), read)


def learned() -> Rounding:
    """Learn which way each weight is rounded, in the same step as everything else.

    Starts at the nearest. A variable for each weight (``Learned``) moves its fraction
    before it is rounded, through AdaRound's rectified sigmoid; the forward pass always
    has the decision that ships. Hold the scale (``held``) while it learns. For calibration
    on a few batches ``adaround_quantization`` needs no training.

    References:
      Nagel et al., 2020, https://arxiv.org/abs/2004.10568
    """

    def init(name: str, shape: tuple[int, ...] | None) -> Learned:
        if shape is None:
            raise ValueError(
                f"learned rounding of the activation {name!r}: its values come and go, "
                "and there is nothing to learn for each; it is for weights."
            )
        return Learned(jnp.zeros(shape, jnp.float32))

    def read(state: Learned, shape: tuple[int, ...]) -> ToInteger:
        del shape

        def to_integer(x: jax.Array) -> jax.Array:
            moved = jnp.clip(1.2 * jax.nn.sigmoid(state.value) - 0.1, 0, 1) - 0.5
            down = lax.stop_gradient(jnp.floor(x))
            up = (lax.stop_gradient(x) - down) + moved.astype(x.dtype)
            # A fraction of exactly a half goes to the even number, as the nearest does.
            tie = (up == 0.5) & (down % 2 == 0)
            decided = ((up >= 0.5) & ~tie).astype(x.dtype)
            return down + ste(moved.astype(x.dtype), decided)

        return to_integer

    return Rounding(init, lambda state: state, read)
