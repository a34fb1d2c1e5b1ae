# SPDX-License-Identifier: Apache-2.0
"""Ranges: from where to where an array goes, as data shows it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...numerics import reduce_tiles
from ...numerics.histogram import add, bounds, empty, histogram
from ._stateful import Ranges, Shape


class Range(NamedTuple):
    """State of ``minmax`` and ``moving_average``."""

    low: jax.Array  # float32, of the shape of the scales; of what was seen
    high: jax.Array  # float32, likewise
    count: jax.Array  # int32 []: arrays seen


def minmax() -> Ranges:
    """Everything that was ever seen. Exact over any split of the data into batches."""

    def observe(state: Range, x: jax.Array) -> Range:
        low, high = _bounds(x, state.low.shape)
        return Range(
            jnp.minimum(state.low, low), jnp.maximum(state.high, high), state.count + 1
        )

    def init(shape: Shape = ()) -> Range:
        inf = jnp.full(shape, jnp.inf, jnp.float32)
        return Range(inf, -inf, jnp.zeros((), jnp.int32))

    return Ranges(init, observe, _known)


def moving_average(decay: float = 0.99) -> Ranges:
    """An exponential moving average of each batch's smallest and largest value.

    The first batch is taken as it is.

    Args:
      decay: weight of what was known before, in [0, 1).

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} is not in [0, 1).")

    def observe(state: Range, x: jax.Array) -> Range:
        def mix(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(state.count == 0, new, decay * old + (1 - decay) * new)

        low, high = _bounds(x, state.low.shape)
        return Range(mix(state.low, low), mix(state.high, high), state.count + 1)

    def init(shape: Shape = ()) -> Range:
        zero = jnp.zeros(shape, jnp.float32)
        return Range(zero, zero, jnp.zeros((), jnp.int32))

    return Ranges(init, observe, _known)


def percentile(share: float = 0.9999) -> Ranges:
    """Without the few largest and the few smallest values: outliers are clipped.

    One range for all that is seen counts values by magnitude in buckets that are 3 % wide,
    so it is exact over any split of the data, and at most 3 % wider than the percentile.
    Ranges of tiles (weights) are those of the last array seen, and exact.

    Args:
      share: of the values that lie below ``high``, and of those above ``low``.
    """
    if not 0.5 < share <= 1:
        raise ValueError(f"share={share} is not in (0.5, 1]; 0.999 clips one in 1000.")

    def init(shape: Shape = ()) -> jax.Array | Range:
        return minmax().init(shape) if shape else empty()

    def observe(state: Any, x: jax.Array) -> Any:
        if not isinstance(state, Range):
            return add(state, histogram(x))

        def end(values: jax.Array, axes: tuple[int, ...]) -> jax.Array:
            return jnp.quantile(values, share, axes, method="inverted_cdf")

        high, low = (
            sign * reduce_tiles(end, sign * x.astype(jnp.float32), state.low.shape)
            for sign in (1, -1)
        )
        return Range(low, high, state.count + 1)

    def read(state: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _known(state, x) if isinstance(state, Range) else bounds(state, share)

    return Ranges(init, observe, read)


def dynamic(axis: int | tuple[int, ...] | None = None) -> Ranges:
    """The range of the very array that is quantized; nothing is kept.

    Args:
      axis: what to take the range over; None: everything. ``-1`` gives every row, such
        as a token, its own.
    """

    def read(state: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del state
        x = x.astype(jnp.float32)
        return jnp.min(x, axis, keepdims=True), jnp.max(x, axis, keepdims=True)

    return Ranges(lambda shape=(): (), lambda state, x: state, read)


def _bounds(x: jax.Array, shape: Shape) -> tuple[jax.Array, jax.Array]:
    x = lax.stop_gradient(x)
    if not shape:
        return jnp.min(x).astype(jnp.float32), jnp.max(x).astype(jnp.float32)
    low, high = (reduce_tiles(f, x, shape) for f in (jnp.min, jnp.max))
    return low.astype(jnp.float32), high.astype(jnp.float32)


def _known(state: Range, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    del x
    seen = state.count > 0
    return (
        jnp.where(seen, state.low, jnp.nan),
        jnp.where(seen, state.high, jnp.nan),
    )
