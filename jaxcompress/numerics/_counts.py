# SPDX-License-Identifier: Apache-2.0
"""Exact counts of set flags, up to 2**47, without 64-bit integers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_BASE = 1 << 16
_MOST = 1 << 47
LIMIT = 1 << 32
"""A single array must hold fewer elements than this, because indices are uint32."""


class Number(NamedTuple):
    """An integer as two digits of base 2**16, so that sums can exceed 2**32."""

    high: jax.Array  # uint32 []
    low: jax.Array  # uint32 [], below 2**16


def number(count: jax.Array | int | float) -> Number:
    """Convert an integer or float of any size, clipped to [0, 2**47]."""
    if isinstance(count, int | np.integer):  # it may exceed the integers that jit takes
        high, low = divmod(min(max(int(count), 0), _MOST), _BASE)
        return Number(jnp.uint32(high), jnp.uint32(low))
    count = jnp.maximum(jnp.asarray(count), 0)
    if jnp.issubdtype(count.dtype, jnp.floating):
        # Exact: dividing a float by a power of two, and its remainder.
        count = jnp.round(jnp.minimum(count.astype(jnp.float32), float(_MOST)))
        high = jnp.floor(count / _BASE)
        return Number(
            high.astype(jnp.uint32), (count - high * _BASE).astype(jnp.uint32)
        )
    return _split(count.astype(jnp.uint32))


def total(counts: Sequence[jax.Array]) -> Number:
    """Sum at most 2**16 uint32 scalars."""
    parts = [_split(count) for count in counts]
    low = functools.reduce(jnp.add, [part.low for part in parts])
    high = functools.reduce(jnp.add, [part.high for part in parts])
    return Number(high + low // _BASE, low % _BASE)


def less(a: Number, b: Number) -> jax.Array:
    """Return whether ``a < b``."""
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def minus(a: Number, b: Number) -> Number:
    """Return ``a - b`` for ``b <= a``."""
    borrow = (a.low < b.low).astype(jnp.uint32)
    return Number(a.high - b.high - borrow, a.low + borrow * _BASE - b.low)


def clipped_to(a: Number, most: int) -> Number:
    """Return ``min(a, most)``."""
    return select(less(number(most), a), number(most), a)


def clipped(a: Number, most: jax.Array) -> jax.Array:
    """Return ``min(a, most)`` as uint32."""
    return jnp.where(less(a, _split(most)), a.high * _BASE + a.low, most)


def select(flag: jax.Array, a: Number, b: Number) -> Number:
    """Return ``a`` if the flag is set, else ``b``."""
    return Number(jnp.where(flag, a.high, b.high), jnp.where(flag, a.low, b.low))


def count(flags: Sequence[jax.Array]) -> list[jax.Array]:
    """Count the set flags in each of several bool arrays of one shape, in one pass.

    First count within tiles, in one reduction of several operands. For a plain sum of a
    large array, XLA for CPU builds a tree of sums and writes the flags to memory. Then sum
    over the tiles; devices exchange these sums as scalars. Each axis is cut into enough
    tiles that a shard holds whole ones.
    """
    split: list[int] = []
    tile_axes: list[int] = []
    for size in flags[0].shape:
        tiles = _tiles(size)
        if tiles > 1:
            split.append(tiles)
        tile_axes.append(len(split))
        split.append(size // tiles)
    operands = tuple(f.reshape(split).astype(jnp.uint32) for f in flags)
    zeros = (jnp.zeros((), jnp.uint32),) * len(operands)
    return [
        jnp.sum(part) for part in lax.reduce(operands, zeros, _add, tuple(tile_axes))
    ]


def _add(*columns: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(functools.reduce(jnp.add, xs) for xs in zip(*columns, strict=True))


def _tiles(size: int) -> int:
    """Return the largest power of two that cuts an axis into tiles of 16 or more."""
    tiles = 1
    while size and size % (2 * tiles) == 0 and size // (2 * tiles) >= 16:
        tiles *= 2
    return tiles


def _split(count: jax.Array) -> Number:
    return Number(count // _BASE, count % _BASE)
