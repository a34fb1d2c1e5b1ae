# SPDX-License-Identifier: Apache-2.0
"""Exact numerics that the techniques share: straight-through values, exact ranks."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def ste(x: jax.Array, value: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    """``value`` forward, bit for bit; the identity of ``x`` backward.

    Written as ``value + (x - x)`` with stopped gradients and not as ``x + (value - x)``,
    whose rounding turns the 16 values of a 4-bit grid into a few more. It is made of
    ordinary operations, so forward mode and second derivatives pass through it.

    Args:
      x: float array, what the gradient goes to.
      value: array of the same shape and dtype, what the forward pass sees.
      inside: bool array; where it is False the gradient is zero. None: everywhere True.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.value_and_grad(lambda x: ste(x, jnp.round(x)))(0.7)
      (Array(1., dtype=float32, weak_type=True), Array(1., dtype=float32, weak_type=True))
    """
    through = x if inside is None else jnp.where(inside, x, lax.stop_gradient(x))
    return lax.stop_gradient(value) + (through - lax.stop_gradient(through))


@jax.jit
def smallest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
    """Mark exactly ``count`` elements: the smallest, ties broken by flat index.

    Equal to the first ``count`` entries of a stable argsort, found by bisection on bit
    patterns instead of a sort: 32 passes of a fused compare-and-count (16 for 16-bit
    floats), whose memory is one counter and whose passes shard without gathering.

    Args:
      scores: float array of any shape, float32, bfloat16 or float16. NaN counts as the
        largest.
      count: how many to mark, traced or not; clipped to the size.

    Returns:
      Bool array shaped like ``scores``.

    Example:
      >>> import jax.numpy as jnp
      >>> smallest(jnp.array([3., 1., 2., 1.]), 1).tolist()
      [False, True, False, False]
    """
    keys = _ordered_keys(scores)
    count = jnp.clip(jnp.asarray(count, jnp.int32), 0, scores.size)
    threshold = _kth_smallest_key([keys], count)
    below, tied = keys < threshold, keys == threshold
    missing = count - jnp.sum(below, dtype=jnp.int32)
    return below | (tied & _first(tied, missing))


@jax.jit
def smallest_per_leaf(leaves: Sequence[jax.Array], count: jax.Array) -> list[jax.Array]:
    """How many of the ``count`` smallest elements of several arrays each of them holds.

    Ties are broken by position: earlier arrays give first. Nothing is concatenated.

    Args:
      leaves: float arrays of one dtype and any shapes.
      count: how many smallest elements to take in all, traced or not.

    Returns:
      One int32 scalar an array; they add up to ``count``.
    """
    keys = [_ordered_keys(leaf) for leaf in leaves]
    count = jnp.clip(jnp.asarray(count, jnp.int32), 0, sum(k.size for k in keys))
    threshold = _kth_smallest_key(keys, count)
    below = [jnp.sum(k < threshold, dtype=jnp.int32) for k in keys]
    missing, counts = count - sum(below), []
    for key, n in zip(keys, below, strict=True):
        ties = jnp.minimum(missing, jnp.sum(key == threshold, dtype=jnp.int32))
        counts.append(n + ties)
        missing = missing - ties
    return counts


def expand_tiles(tiles: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Broadcast one value a tile to the whole array.

    Args:
      tiles: array of the rank of ``shape``; each dimension divides that of ``shape``.
      shape: shape of the result.

    Example:
      >>> import jax.numpy as jnp
      >>> expand_tiles(jnp.array([[1., 2.]]), (2, 4)).tolist()
      [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    split, spread = [], []
    for have, want in zip(tiles.shape, shape, strict=True):
        split += [have, 1]
        spread += [have, want // have]
    return jnp.broadcast_to(tiles.reshape(split), spread).reshape(shape)


def split_tiles(
    x: jax.Array, tiles: Sequence[int]
) -> tuple[jax.Array, tuple[int, ...]]:
    """Split every axis into (tile, position in the tile).

    Args:
      x: array whose dimensions are multiples of ``tiles``.
      tiles: how many tiles there are along each axis.

    Returns:
      The reshaped array, and the axes to reduce over for one value a tile.
    """
    split = [
        n
        for have, want in zip(tiles, x.shape, strict=True)
        for n in (have, want // have)
    ]
    return x.reshape(split), tuple(range(1, len(split), 2))


def _ordered_keys(x: jax.Array) -> jax.Array:
    """Unsigned integers that order like the floats: negative ones flipped."""
    bits = jnp.finfo(x.dtype).bits
    if bits == 64:
        raise TypeError("scores are float64; rank float32, bfloat16 or float16 scores.")
    unsigned = jnp.uint32 if bits == 32 else jnp.uint16
    raw = lax.bitcast_convert_type(x, unsigned)
    top = jnp.asarray(1 << (bits - 1), unsigned)
    # A negative zero equals a positive one. On the bits, since a float comparison may
    # take subnormals for zeros.
    raw = jnp.where(raw == top, jnp.zeros_like(raw), raw)
    keys = jnp.where(raw >= top, ~raw, raw | top)
    return jnp.where(jnp.isnan(x), ~jnp.zeros_like(raw), keys)


def _kth_smallest_key(keys: Sequence[jax.Array], count: jax.Array) -> jax.Array:
    """Key of the ``count``-th smallest over all arrays (1-based), bit by bit."""
    dtype = jnp.result_type(*keys)
    bits = jnp.iinfo(dtype).bits

    def set_bit(i: jax.Array, low: jax.Array) -> jax.Array:
        bit = lax.shift_left(jnp.asarray(1, dtype), jnp.asarray(bits - 1 - i, dtype))
        candidate = low | bit
        below = sum(jnp.sum(k < candidate, dtype=jnp.int32) for k in keys)
        return jnp.where(below < count, candidate, low)

    return lax.fori_loop(0, bits, set_bit, jnp.zeros((), dtype))


def _first(flags: jax.Array, count: jax.Array) -> jax.Array:
    """Mark the first ``count`` positions in flat order up to the last flag needed."""
    index = _flat_index(flags.shape)

    def halve(bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        enough = jnp.sum(flags & (index < middle), dtype=jnp.int32) >= count
        return jnp.where(enough, low, middle + 1), jnp.where(enough, middle, high)

    # Without ties to break every flag is needed, and the loop does not run.
    whole = jnp.asarray(flags.size, jnp.int32)
    low = jnp.where(jnp.sum(flags, dtype=jnp.int32) <= count, whole, 0)
    end, _ = lax.while_loop(lambda b: b[0] < b[1], halve, (low, whole))
    return index < end


def _flat_index(shape: Sequence[int]) -> jax.Array:
    """Row-major index of every element, without a reshape that sharding would undo."""
    index, stride = jnp.zeros(shape, jnp.int32), 1
    for axis in reversed(range(len(shape))):
        index = index + lax.broadcasted_iota(jnp.int32, tuple(shape), axis) * stride
        stride *= shape[axis]
    return index
