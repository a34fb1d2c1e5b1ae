# SPDX-License-Identifier: Apache-2.0
"""Ranges found by search, which trade clipping error for rounding error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ..._arguments import check_whole
from ..._origin import Origin, check_origin, make_origin
from ...formats import Format
from ...leaves import dequantize
from ...numerics import cond, divide_by_tiles, one_program, tiles_as_rows
from ...numerics.histogram import add, edges, empty, histogram
from ._following import absmax, is_mirrored, of_range
from ._stateful import Chosen, Shape, StatefulScale

# Candidate ranges, as shares of the full range. They are finer at the top, because with
# many bits little should be clipped.
_SHARES = np.concatenate([np.linspace(0.05, 0.95, 37), np.linspace(0.96, 1, 5)])
_BINS = 2048
# Values searched at a time: enough to keep a device busy, little next to a weight.
_AT_ONCE = 2**18
# A range must keep at least this many bins: fewer do not describe a distribution.
_MIN_BINS = 128

Cost = Callable[[jax.Array, jax.Array, jax.Array, jax.Array, Format], jax.Array]
"""Function ``(values, counts, low, high, fmt) -> []``: the cost of a range.

The values ``(n,)`` are in ascending order if the cost asks for it; counts say how often
each occurs."""


Range = tuple[jax.Array, jax.Array]
"""The lowest and the highest values, float32 of the shape of the scales."""


class SearchedState(NamedTuple):
    """State of ``mse`` and ``entropy``."""

    count: jax.Array  # int32 []: arrays observed
    low: jax.Array  # float32, of the shape of the scales
    high: jax.Array  # float32, same shape
    # int32 histogram of all observed values, for a single range; None for tiles
    counts: jax.Array | None
    origin: Origin | None  # the format that the ranges of tiles were searched for


def mse(*, power: float = 2.0, every: int = 100) -> StatefulScale:
    """Search for the range with the least quantization error.

    Use it for weights below 8 bits that are not trained further. In two pretrained
    networks it had the least error of weights and outputs at 3 and 4 bits, per channel and
    in groups of 32; at 8 bits ``absmax`` does as well (``benchmarks/README.md``).

    For a weight, the search runs over the values of each tile, once in ``every`` updates.
    For an activation, it runs over a histogram of all observed values.

    Args:
      power: exponent of the summed error. 2 is the mean squared error; 2.4 weighs large
        errors more.
      every: updates of a weight between two searches.

    Raises:
      ValueError: if ``power`` is not positive or ``every`` is below 1.

    Example:
      >>> import jaxcompress as jc
      >>> int3 = jc.weight_quantization(bits=3, scale=jc.quantize.scales.mse())

    References:
      Banner et al., 2019, https://arxiv.org/abs/1810.05723; the search as in Nagel et al.,
      2021, https://arxiv.org/abs/2106.08295
    """
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}.")

    return _make_scale("mse", _Power(power), every, ordered=False)


def entropy(*, every: int = 100) -> StatefulScale:
    """Search for the range with the least KL divergence; for long-tailed activations.

    The divergence ignores distances between values, so ``mse`` is better for weights.

    Args:
      every: updates of a weight between two searches.

    Raises:
      ValueError: if ``every`` is below 1.

    References:
      Migacz, 8-bit inference with TensorRT, GTC 2017.
    """
    return _make_scale("entropy", _divergence, every, ordered=True)


@dataclasses.dataclass(frozen=True)
class _Power:
    """The summed error to a power; equal ones share their compiled programs."""

    power: float

    def __call__(
        self,
        values: jax.Array,
        counts: jax.Array,
        low: jax.Array,
        high: jax.Array,
        fmt: Format,
    ) -> jax.Array:
        error = jnp.abs(_fake_quantize(values, low, high, fmt) - values)
        return jnp.sum(counts * error**self.power)


def _divergence(
    values: jax.Array, counts: jax.Array, low: jax.Array, high: jax.Array, fmt: Format
) -> jax.Array:
    """The KL divergence of the rounded distribution from the given one."""
    bins, mass = _rebin(values, counts)
    inside = (bins >= low) & (bins <= high)
    inner_mass = jnp.where(inside, mass, 0)
    # Clipped values count at the ends of the range.
    below = jnp.sum(jnp.where(bins < low, mass, 0))
    above = jnp.sum(jnp.where(bins > high, mass, 0))
    first, last = jnp.argmax(inside), _BINS - 1 - jnp.argmax(inside[::-1])
    clipped_mass = inner_mass.at[first].add(below).at[last].add(above)
    levels = _fake_quantize(bins, low, high, fmt)
    starts = jnp.concatenate([jnp.zeros(1, bool), levels[1:] != levels[:-1]])
    level_of_bin = jnp.cumsum(starts)
    filled = (inner_mass > 0).astype(jnp.float32)
    total = jax.ops.segment_sum(inner_mass, level_of_bin, _BINS)
    bins_filled = jax.ops.segment_sum(filled, level_of_bin, _BINS)
    even = filled * (total / jnp.maximum(bins_filled, 1))[level_of_bin]
    p = clipped_mass / jnp.maximum(jnp.sum(clipped_mass), 1)
    q = even / jnp.maximum(jnp.sum(even), 1) + 1e-9
    divergence = jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-30) / q), 0))
    return jnp.where(jnp.sum(inside) < _MIN_BINS, jnp.inf, divergence)


def _make_scale(name: str, cost: Cost, every: int, *, ordered: bool) -> StatefulScale:
    check_whole(every=every)
    if every < 1:
        raise ValueError(
            f"every must be at least 1 update between searches, got {every}."
        )

    def init(shape: Shape, fmt: Format) -> SearchedState:
        unset = jnp.full(shape, jnp.nan, jnp.float32)
        count = jnp.zeros((), jnp.int32)
        if shape:
            return SearchedState(count, unset, unset, None, make_origin(name, fmt))
        return SearchedState(count, unset, unset, empty(), None)

    def check(state: SearchedState, fmt: Format) -> None:
        if state.origin is not None:
            check_origin(state.origin, name, fmt)

    def observe(state: SearchedState, x: jax.Array, fmt: Format) -> SearchedState:
        check(state, fmt)
        x = lax.stop_gradient(x)
        if state.counts is not None:
            return state._replace(
                count=state.count + 1, counts=add(state.counts, histogram(x))
            )

        def search() -> tuple[jax.Array, jax.Array]:
            wide = x.astype(jnp.float32)
            shape = state.low.shape
            return _run(_search_tiles, wide, cost, fmt, ordered=ordered, shape=shape)

        is_due = state.count % every == 0
        low, high = cond(is_due, search, lambda: (state.low, state.high))
        return state._replace(count=state.count + 1, low=low, high=high)

    def read(state: SearchedState, x: jax.Array, fmt: Format) -> Chosen:
        check(state, fmt)
        if state.counts is None:
            return of_range(state.low, state.high, fmt)
        del x
        return of_range(*_run(_search_histogram, state.counts, cost, fmt), fmt)

    return StatefulScale(init=init, observe=observe, read=read)


def _run(
    search: Any, array: jax.Array, cost: Cost, fmt: Format, **static: Any
) -> Range:
    """Call a search. It is compiled: its loops would compile in every eager call."""
    try:
        hash(fmt)
    except TypeError:  # bits that are an array
        search = search.__wrapped__
    return search(array, cost=cost, fmt=fmt, **static)


@one_program("cost", "fmt", "ordered", "shape")
def _search_tiles(
    x: jax.Array, cost: Cost, fmt: Format, *, ordered: bool, shape: Shape
) -> Range:
    """Return the best range of each tile."""
    if fmt.binary:
        # Binary values have one magnitude; the mean has the least squared error.
        scale, _ = absmax(x, shape, fmt)
        assert isinstance(scale, jax.Array)
        return -scale, scale

    tiles = tiles_as_rows(x, shape)
    if ordered:  # Sorting takes several times as long as the search.
        tiles = jnp.sort(tiles)
    ones = jnp.ones(tiles.shape[1:], jnp.float32)
    # All tiles at once would need a large array, and one after another too many steps.
    together = max(1, _AT_ONCE // max(tiles.shape[1], _BINS))
    low, high = lax.map(
        lambda row: _search(cost, row, ones, fmt),
        tiles,
        batch_size=min(together, len(tiles)),
    )
    return low.reshape(shape), high.reshape(shape)


@one_program("cost", "fmt")
def _search_histogram(counts: jax.Array, cost: Cost, fmt: Format) -> Range:
    """Return the best range of a histogram; NaN if it is empty or counted a NaN."""
    upper = edges()
    lower = np.concatenate([np.zeros(1, np.float32), upper[:-1]])
    middle = (upper + lower) / 2
    values = jnp.asarray(np.concatenate([-middle[::-1], middle]))
    value_counts = jnp.concatenate([counts[0, :-1][::-1], counts[1, :-1]]).astype(
        jnp.float32
    )
    low, high = _search(cost, values, value_counts, fmt)
    is_valid = (jnp.sum(value_counts) > 0) & ~jnp.any(counts[:, -1])
    return jnp.where(is_valid, low, jnp.nan), jnp.where(is_valid, high, jnp.nan)


def _search(
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
    # On ties take the widest range: values already on a grid stay there.
    best = shares[len(_SHARES) - 1 - jnp.argmin(costs[::-1])]
    return best * low, best * high


def _fake_quantize(
    values: jax.Array, low: jax.Array, high: jax.Array, fmt: Format
) -> jax.Array:
    """Quantize and dequantize values with the grid that spans a range."""
    scale, zero_point = of_range(low, high, fmt)
    steps = divide_by_tiles(values, scale)
    if zero_point is not None:
        steps = jnp.round(steps) + zero_point
    levels = fmt.round(steps)
    per_tensor = (1,) * values.ndim
    return dequantize(
        levels,
        scale.reshape(per_tensor),
        None if zero_point is None else zero_point.reshape(per_tensor),
        values.dtype,
    )


def _rebin(values: jax.Array, counts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rebin into even bins over the range; return their centers and counts."""
    occurs = counts > 0
    low = jnp.min(jnp.where(occurs, values, jnp.inf))
    high = jnp.max(jnp.where(occurs, values, -jnp.inf))
    ends = low + (high - low) * jnp.linspace(0, 1, _BINS + 1)
    below = jnp.concatenate([jnp.zeros(1), jnp.cumsum(counts)])
    # Spread the counts evenly between neighboring values.
    places = jnp.concatenate([values[:1], (values[1:] + values[:-1]) / 2, values[-1:]])
    mass = jnp.diff(jnp.interp(ends, places, below))
    return (ends[1:] + ends[:-1]) / 2, mass
