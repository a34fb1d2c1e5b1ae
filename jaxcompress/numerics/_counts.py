# SPDX-License-Identifier: Apache-2.0
"""Counting set flags, exactly, up to 2**47 of them, without 64-bit integers."""

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
"""A single array holds fewer elements than this: its indices are uint32."""


class Number(NamedTuple):
    """A whole number as two digits of base 2**16: pairs of them add up past 2**32."""

    high: jax.Array  # uint32 []
    low: jax.Array  # uint32 [], below 2**16


def number(count: jax.Array | int | float) -> Number:
    """A number from an integer or a float of any size, clipped to [0, 2**47]."""
    if isinstance(count, int | np.integer):  # it may not fit into what jit takes
        high, low = divmod(min(max(int(count), 0), _MOST), _BASE)
        return Number(jnp.uint32(high), jnp.uint32(low))
    count = jnp.maximum(jnp.asarray(count), 0)
    if jnp.issubdtype(count.dtype, jnp.floating):
        # Exact: a float divided by a power of two, and what is left of it.
        count = jnp.round(jnp.minimum(count.astype(jnp.float32), float(_MOST)))
        high = jnp.floor(count / _BASE)
        return Number(
            high.astype(jnp.uint32), (count - high * _BASE).astype(jnp.uint32)
        )
    return _split(count.astype(jnp.uint32))


def total(counts: Sequence[jax.Array]) -> Number:
    """The sum of at most 2**16 uint32 scalars."""
    parts = [_split(count) for count in counts]
    low = functools.reduce(jnp.add, [part.low for part in parts])
    high = functools.reduce(jnp.add, [part.high for part in parts])
    return Number(high + low // _BASE, low % _BASE)


def less(a: Number, b: Number) -> jax.Array:
    """Whether one number is less than another."""
    return (a.high < b.high) | ((a.high == b.high) & (a.low < b.low))


def minus(a: Number, b: Number) -> Number:
    """The difference of a number and one that is no larger."""
    borrow = (a.low < b.low).astype(jnp.uint32)
    return Number(a.high - b.high - borrow, a.low + borrow * _BASE - b.low)


def clipped_to(a: Number, most: int) -> Number:
    """The number, or ``most`` if that is less."""
    return select(less(number(most), a), number(most), a)


def clipped(a: Number, most: jax.Array) -> jax.Array:
    """A number as uint32, or ``most`` if that is less."""
    return jnp.where(less(a, _split(most)), a.high * _BASE + a.low, most)


def select(flag: jax.Array, a: Number, b: Number) -> Number:
    """One number or the other."""
    return Number(jnp.where(flag, a.high, b.high), jnp.where(flag, a.low, b.low))


def count(flags: Sequence[jax.Array]) -> list[jax.Array]:
    """How many are set in each of several bool arrays of one shape, in one pass.

    First within tiles, in one reduction of several operands: a plain sum of a large array
    XLA for CPU turns into a tree of sums, for which it writes the flags to memory. Then
    over the tiles, in plain sums, which devices exchange as scalars: each axis is cut into
    so many tiles that a shard holds whole ones.
    """
    split: list[int] = []
    inside: list[int] = []
    for size in flags[0].shape:
        tiles = _tiles(size)
        if tiles > 1:
            split.append(tiles)
        inside.append(len(split))
        split.append(size // tiles)
    operands = tuple(f.reshape(split).astype(jnp.uint32) for f in flags)
    zeros = (jnp.zeros((), jnp.uint32),) * len(operands)
    return [jnp.sum(part) for part in lax.reduce(operands, zeros, _add, tuple(inside))]


def _add(*columns: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(functools.reduce(jnp.add, xs) for xs in zip(*columns, strict=True))


def _tiles(size: int) -> int:
    """The largest power of two that cuts an axis into tiles of 16 or more."""
    tiles = 1
    while size and size % (2 * tiles) == 0 and size // (2 * tiles) >= 16:
        tiles *= 2
    return tiles


def _split(count: jax.Array) -> Number:
    return Number(count // _BASE, count % _BASE)
