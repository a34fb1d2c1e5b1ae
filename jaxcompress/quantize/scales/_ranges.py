# SPDX-License-Identifier: Apache-2.0
"""Ranges of values, observed from data: minmax, moving average, percentile, dynamic."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...numerics import reduce_tiles
from ...numerics.histogram import add, bounds, empty, histogram
from ._calls import Call
from ._stateful import Ranges, Shape


class Range(NamedTuple):
    """State of ``minmax`` and ``moving_average``."""

    low: jax.Array  # float32, of the shape of the scales: smallest value
    high: jax.Array  # float32, same shape: largest value
    count: jax.Array  # int32 []: arrays observed


def minmax() -> Ranges:
    """Track the smallest and largest value ever observed.

    The result is exact and does not depend on how the data is split into batches.
    """

    def observe(state: Range, x: jax.Array) -> Range:
        low, high = _min_and_max(x, state.low.shape)
        return Range(
            jnp.minimum(state.low, low), jnp.maximum(state.high, high), state.count + 1
        )

    def init(shape: Shape = ()) -> Range:
        inf = jnp.full(shape, jnp.inf, jnp.float32)
        return Range(inf, -inf, jnp.zeros((), jnp.int32))

    return Ranges(init, observe, _read_range)


def moving_average(decay: float = 0.99) -> Ranges:
    """Average each batch's smallest and largest value with an exponential decay.

    The first batch sets the range. All values that loops compute from one batch, such as
    the time steps of a recurrent network, belong to that batch.

    Args:
      decay: weight of the previous range, in [0, 1).

    Raises:
      ValueError: if ``decay`` is out of range.

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got {decay}.")

    def add(state: Range, low: jax.Array, high: jax.Array) -> Range:
        def mix(old: jax.Array, new: jax.Array) -> jax.Array:
            return jnp.where(state.count == 0, new, decay * old + (1 - decay) * new)

        return Range(mix(state.low, low), mix(state.high, high), state.count + 1)

    def observe(state: Range, x: jax.Array) -> Range:
        return add(state, *_min_and_max(x, state.low.shape))

    batch = minmax()

    def end(state: Range, seen: Range) -> Range:
        after = add(state, seen.low, seen.high)
        return jax.tree.map(
            lambda new, old: jnp.where(seen.count > 0, new, old), after, state
        )

    call = Call(
        start=lambda state: batch.init(state.low.shape),
        add=lambda seen, state, x, fmt: batch.observe(seen, x),
        end=end,
    )

    def init(shape: Shape = ()) -> Range:
        zero = jnp.zeros(shape, jnp.float32)
        return Range(zero, zero, jnp.zeros((), jnp.int32))

    return Ranges(init, observe, _read_range, call)


def percentile(share: float = 0.9999) -> Ranges:
    """Clip outliers: leave the few largest and smallest values out of the range.

    A single range (activations) counts values in histogram bins of magnitude that are 3 %
    wide. It does not depend on how the data is split, and is at most 3 % wider than the
    percentile. Ranges per tile (weights) are the exact percentiles of the last array.

    Args:
      share: fraction of the values below ``high``, and of those above ``low``; in
        (0.5, 1].

    Raises:
      ValueError: if ``share`` is out of range.
    """
    if not 0.5 < share <= 1:
        raise ValueError(
            f"share must be in (0.5, 1] (0.999 clips one in 1000), got {share}."
        )

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
        return (
            _read_range(state, x) if isinstance(state, Range) else bounds(state, share)
        )

    return Ranges(init, observe, read)


def dynamic(axis: int | tuple[int, ...] | None = None) -> Ranges:
    """Use the range of the array being quantized: no calibration and no state.

    Args:
      axis: axes to reduce over; None reduces over all. ``-1`` gives every row, such as a
        token, its own range.
    """

    def read(state: Any, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del state
        x = x.astype(jnp.float32)
        return jnp.min(x, axis, keepdims=True), jnp.max(x, axis, keepdims=True)

    return Ranges(lambda shape=(): (), lambda state, x: state, read)


def _min_and_max(x: jax.Array, shape: Shape) -> tuple[jax.Array, jax.Array]:
    x = lax.stop_gradient(x)
    if not shape:
        return jnp.min(x).astype(jnp.float32), jnp.max(x).astype(jnp.float32)
    low, high = (reduce_tiles(f, x, shape) for f in (jnp.min, jnp.max))
    return low.astype(jnp.float32), high.astype(jnp.float32)


def _read_range(state: Range, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    del x
    seen = state.count > 0
    return (
        jnp.where(seen, state.low, jnp.nan),
        jnp.where(seen, state.high, jnp.nan),
    )
