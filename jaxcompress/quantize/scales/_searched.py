# SPDX-License-Identifier: Apache-2.0
"""Ranges that are searched for: what is clipped weighed against what is rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ...formats import Format
from ...leaves import dequantize
from ...numerics import tiles_as_rows
from ...numerics.histogram import add, edges, empty, histogram
from ._following import absmax, is_mirrored, of_range
from ._stateful import Chosen, Shape, StatefulScale

# Shares of the full range that are tried: finely at the top, since of many bits only
# little may be clipped.
_SHARES = np.concatenate([np.linspace(0.05, 0.95, 37), np.linspace(0.96, 1, 5)])
_BINS = 2048
# Of the bins, that have to remain: fewer tell nothing of a distribution.
_FEWEST = 128

Cost = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Format], jax.Array]
"""``(values, counts, low, high, fmt) -> []``: what a range costs, of values ``(n,)`` in
ascending order and how often each occurs."""


class SearchedState(NamedTuple):
    """State of ``mse`` and ``entropy``."""

    count: jax.Array  # int32 []: arrays seen
    low: jax.Array  # float32, of the shape of the scales
    high: jax.Array  # float32, likewise
    counts: (
        jax.Array | None
    )  # int32 histogram of all that was seen, where it is one range


def mse(*, power: float = 2.0, every: int = 100) -> StatefulScale:
    """The range whose grid is nearest to the values.

    Of a weight, by a search over the values of each tile, now and then. Of an activation,
    over a histogram of all that was observed.

    Args:
      power: of the error that is summed; 2 is the mean squared error, 2.4 counts large
        errors more.
      every: updates of a weight between two searches.

    Example:
      >>> import jaxcompress as jc
      >>> int3 = jc.weight_quantization(bits=3, scale=jc.quantize.scales.mse())

    References:
      Banner et al., 2019, https://arxiv.org/abs/1810.05723; the search as in Nagel et al.,
      2021, https://arxiv.org/abs/2106.08295
    """
    if not power > 0:
        raise ValueError(f"power={power} is not above 0.")

    def cost(
        values: jax.Array,
        counts: jax.Array,
        low: jax.Array,
        high: jax.Array,
        fmt: Format,
    ) -> jax.Array:
        error = jnp.abs(_rounded(values, low, high, fmt) - values)
        return jnp.sum(counts * error**power)

    return _searched(cost, every)


def entropy(*, every: int = 100) -> StatefulScale:
    """The range whose grid keeps most of the distribution: least KL divergence.

    For activations with long tails. It knows of no distances between values, so of weights
    ``mse`` is the better choice.

    Args:
      every: updates of a weight between two searches.

    References:
      Migacz, 8-bit inference with TensorRT, GTC 2017.
    """

    def cost(
        values: jax.Array,
        counts: jax.Array,
        low: jax.Array,
        high: jax.Array,
        fmt: Format,
    ) -> jax.Array:
        bins, mass = _evenly(values, counts)
        inside = (bins >= low) & (bins <= high)
        held = jnp.where(inside, mass, 0)
        # What is clipped is seen at the ends.
        below = jnp.sum(jnp.where(bins < low, mass, 0))
        above = jnp.sum(jnp.where(bins > high, mass, 0))
        first, last = jnp.argmax(inside), _BINS - 1 - jnp.argmax(inside[::-1])
        seen = held.at[first].add(below).at[last].add(above)
        levels = _rounded(bins, low, high, fmt)
        new = jnp.concatenate([jnp.zeros(1, bool), levels[1:] != levels[:-1]])
        group = jnp.cumsum(new)
        filled = (held > 0).astype(jnp.float32)
        total = jax.ops.segment_sum(held, group, _BINS)
        number = jax.ops.segment_sum(filled, group, _BINS)
        even = filled * (total / jnp.maximum(number, 1))[group]
        p = seen / jnp.maximum(jnp.sum(seen), 1)
        q = even / jnp.maximum(jnp.sum(even), 1) + 1e-9
        divergence = jnp.sum(
            jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30) / q), 0)
        )
        return jnp.where(jnp.sum(inside) < _FEWEST, jnp.inf, divergence)

    return _searched(cost, every)


def _searched(cost: Cost, every: int) -> StatefulScale:
    if every < 1:
        raise ValueError(
            f"every={every}: a range is searched for every 1 or more updates."
        )

    def init(shape: Shape, fmt: Format) -> SearchedState:
        del fmt
        unknown = jnp.full(shape, jnp.nan, jnp.float32)
        counts = None if shape else empty()
        return SearchedState(jnp.zeros((), jnp.int32), unknown, unknown, counts)

    def observe(state: SearchedState, x: jax.Array, fmt: Format) -> SearchedState:
        x = lax.stop_gradient(x)
        if state.counts is not None:
            return state._replace(
                count=state.count + 1, counts=add(state.counts, histogram(x))
            )

        def search() -> tuple[jax.Array, jax.Array]:
            return _of_tiles(cost, x.astype(jnp.float32), state.low.shape, fmt)

        now = state.count % every == 0
        low, high = lax.cond(now, search, lambda: (state.low, state.high))
        return SearchedState(state.count + 1, low, high, None)

    def read(state: SearchedState, x: jax.Array, fmt: Format) -> Chosen:
        if state.counts is None:
            return of_range(state.low, state.high, fmt)
        del x
        return of_range(*_of_counts(cost, state.counts, fmt), fmt)

    return StatefulScale(init=init, observe=observe, read=read)


def _of_tiles(
    cost: Cost, x: jax.Array, shape: Shape, fmt: Format
) -> tuple[jax.Array, jax.Array]:
    """The best range of each tile."""
    if fmt.binary:
        # A sign has one magnitude, and of those the mean is nearest.
        scale, _ = absmax(x, shape, fmt)
        assert isinstance(scale, jax.Array)
        return -scale, scale

    tiles = jnp.sort(tiles_as_rows(x, shape))
    ones = jnp.ones(tiles.shape[1:], jnp.float32)
    # One tile after the other: the values of all at every share would be a large array.
    low, high = lax.map(lambda row: _best(cost, row, ones, fmt), tiles)
    return low.reshape(shape), high.reshape(shape)


def _of_counts(
    cost: Cost, counts: jax.Array, fmt: Format
) -> tuple[jax.Array, jax.Array]:
    """The best range of a histogram; NaN of no values, and if there was a NaN."""
    upper = edges()
    lower = np.concatenate([np.zeros(1, np.float32), upper[:-1]])
    middle = (upper + lower) / 2
    values = jnp.asarray(np.concatenate([-middle[::-1], middle]))
    number = jnp.concatenate([counts[0, :-1][::-1], counts[1, :-1]]).astype(jnp.float32)
    low, high = _best(cost, values, number, fmt)
    known = (jnp.sum(number) > 0) & ~jnp.any(counts[:, -1])
    return jnp.where(known, low, jnp.nan), jnp.where(known, high, jnp.nan)


def _best(
    cost: Cost, values: jax.Array, counts: jax.Array, fmt: Format
) -> tuple[jax.Array, jax.Array]:
    low = jnp.min(jnp.where(counts > 0, values, jnp.inf))
    high = jnp.max(jnp.where(counts > 0, values, -jnp.inf))
    if is_mirrored(fmt):
        high = jnp.maximum(jnp.abs(low), jnp.abs(high))
        low = -high
    elif not fmt.symmetric:
        low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    shares = jnp.asarray(_SHARES, jnp.float32)
    costs = lax.map(lambda s: cost(values, counts, s * low, s * high, fmt), shares)
    # Of equals the widest: what lies on a grid already stays there.
    best = shares[len(_SHARES) - 1 - jnp.argmin(costs[::-1])]
    return best * low, best * high


def _rounded(
    values: jax.Array, low: jax.Array, high: jax.Array, fmt: Format
) -> jax.Array:
    scale, zero_point = of_range(low, high, fmt)
    steps = values / scale
    if zero_point is not None:
        steps = jnp.round(steps) + zero_point
    levels = fmt.round(steps)
    one = (1,) * values.ndim
    return dequantize(
        levels,
        scale.reshape(one),
        None if zero_point is None else zero_point.reshape(one),
        values.dtype,
    )


def _evenly(values: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The middles of even bins over the range, and how much lies in each."""
    there = counts > 0
    low = jnp.min(jnp.where(there, values, jnp.inf))
    high = jnp.max(jnp.where(there, values, -jnp.inf))
    ends = low + (high - low) * jnp.linspace(0, 1, _BINS + 1)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(counts)])
    # Between two values their counts are spread evenly.
    places = jnp.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    mass = jnp.diff(jnp.interp(ends, places, below))
    return (ends[1:] + ends[:-1]) / 2, mass
