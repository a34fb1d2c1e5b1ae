# SPDX-License-Identifier: Apache-2.0
"""Ranges: from where to where an activation goes, as data shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._histogram import add, bounds, empty, histogram


class Ranges(NamedTuple):
    """A way to choose a range: three pure functions.

    Attributes:
      init: ``() -> state``, having seen nothing.
      observe: ``(state, x) -> state``, having seen ``x`` too.
      read: ``(state, x) -> (low, high)``, float32 scalars, or arrays that broadcast
        against ``x``. NaN before anything was seen, so that it is not overlooked.
    """

    init: Callable[[], Any]
    observe: Callable[[Any, jax.Array], Any]
    read: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]

    @property
    def is_kept(self) -> bool:
        """Whether there is a state, so that the range is known before the array is."""
        return bool(jax.tree.leaves(self.init()))


class Range(NamedTuple):
    """State of ``minmax`` and ``moving_average``."""

    low: jax.Array  # float32 []; of what was seen
    high: jax.Array  # float32 []
    count: jax.Array  # int32 []: arrays seen


def minmax() -> Ranges:
    """Everything that was ever seen. Exact over any split of the data into batches."""

    def observe(state: Range, x: jax.Array) -> Range:
        low, high = _bounds(x)
        return Range(
            jnp.minimum(state.low, low), jnp.maximum(state.high, high), state.count + 1
        )

    def init() -> Range:
        inf = jnp.full((), jnp.inf, jnp.float32)
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

        low, high = _bounds(x)
        return Range(mix(state.low, low), mix(state.high, high), state.count + 1)

    def init() -> Range:
        zero = jnp.zeros((), jnp.float32)
        return Range(zero, zero, jnp.zeros((), jnp.int32))

    return Ranges(init, observe, _known)


def percentile(share: float = 0.9999) -> Ranges:
    """Without the few largest and the few smallest values: outliers are clipped.

    Counts values by magnitude in buckets that are 3 % wide, so it is exact over any
    split of the data, and at most 3 % wider than the percentile.

    Args:
      share: of the values that lie below ``high``, and of those above ``low``.
    """
    if not 0.5 < share <= 1:
        raise ValueError(f"share={share} is not in (0.5, 1]; 0.999 clips one in 1000.")

    def observe(counts: jax.Array, x: jax.Array) -> jax.Array:
        return add(counts, histogram(x))

    def read(counts: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        del x
        return bounds(counts, share)

    return Ranges(empty, observe, read)


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

    return Ranges(lambda: (), lambda state, x: state, read)


def _bounds(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    x = lax.stop_gradient(x)
    return jnp.min(x).astype(jnp.float32), jnp.max(x).astype(jnp.float32)


def _known(state: Range, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    del x
    seen = state.count > 0
    return (
        jnp.where(seen, state.low, jnp.nan),
        jnp.where(seen, state.high, jnp.nan),
    )
