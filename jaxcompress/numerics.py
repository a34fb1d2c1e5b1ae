# SPDX-License-Identifier: Apache-2.0
"""Exact numerics that the techniques share: straight-through values, exact ranks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

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
    patterns instead of a sort: at most 16 passes of a fused compare-and-count (8 for
    16-bit floats) and as many to break ties, whose memory is a few counters and whose
    passes shard: devices exchange counters only.

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
    count = jnp.clip(jnp.asarray(count, jnp.int32), 0, scores.size)
    threshold, held = _split_at([scores], count, lambda x, _: _ordered_keys(x))
    keys = _ordered_keys(scores)
    return (keys < threshold) | _first(keys == threshold, count - held)


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
    count = jnp.clip(jnp.asarray(count, jnp.int32), 0, sum(x.size for x in leaves))
    threshold, held = _split_at(leaves, count, lambda x, _: _ordered_keys(x))
    missing, counts = count - held, []
    for leaf in leaves:
        keys = _ordered_keys(leaf)
        below, tied = _count([keys < threshold, keys == threshold])
        ties = jnp.minimum(missing, tied)
        counts.append(below + ties)
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
        spread += [have, want // have if have else 1]
    return jnp.broadcast_to(tiles.reshape(split), spread).reshape(shape)


def reduce_tiles(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    tiles: Sequence[int],
) -> jax.Array:
    """One value for each tile of an array.

    Args:
      reduce: ``(array, axes) -> array`` without these axes, such as ``jnp.max``.
      x: array whose dimensions are multiples of ``tiles``.
      tiles: how many tiles there are along each axis.

    Returns:
      Array of shape ``tiles``.

    Example:
      >>> import jax.numpy as jnp
      >>> reduce_tiles(jnp.max, jnp.array([[1., 5., 2., 3.]]), (1, 2)).tolist()
      [[5.0, 3.0]]
    """
    split: list[int] = []
    axes: list[int] = []
    for have, want in zip(tiles, x.shape, strict=True):
        # Only what is divided gets two axes: XLA for CPU is slow at reductions between
        # axes of length 1.
        if have not in (1, want):
            split.append(have)
        if have != want:
            axes.append(len(split))
        split.append(want // have if have not in (1, want) else want)
    return reduce(x.reshape(split), tuple(axes)).reshape(tuple(tiles))


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


def _split_at(
    arrays: Sequence[jax.Array],
    count: jax.Array,
    keys_of: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """A key below which ``count`` elements lie, or as many as ties allow.

    Found two bits a pass, from the top; it stops at the first key that divides exactly.

    Args:
      arrays: what to divide.
      count: at most the number of elements.
      keys_of: ``(array, zero) -> keys``, unsigned integers of one dtype. The zero is for
        keys made of nothing else: added early, it keeps them out of memory.

    Returns:
      The key, and how many elements lie below it: ``count``, or fewer if some but not
      all of those that have this key belong to the ``count`` smallest.
    """
    none = jnp.zeros((), jnp.int32)
    dtype = jax.eval_shape(keys_of, arrays[0], none).dtype

    def unsettled(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        shift, _, below = carry
        return (shift >= 0) & (below < count)

    def set_bits(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        shift, key, below = carry
        # XLA would compute the keys once, before the loop, and hold as much memory as
        # the scores. A barrier with the counter in it prevents that; keys without an
        # operand (an index) need a zero that XLA cannot tell is one.
        here, shift, zero = lax.optimization_barrier(
            (tuple(arrays), shift, jnp.minimum(below, 0))
        )
        digits = [jnp.asarray(i, dtype) << shift.astype(dtype) for i in (1, 2, 3)]
        candidates = [key | digit for digit in digits]
        counts = [_count([keys_of(x, zero) < c for c in candidates]) for x in here]
        for candidate, number in zip(candidates, _add(*counts), strict=True):
            key = jnp.where(number <= count, candidate, key)
            below = jnp.where(number <= count, number, below)
        return shift - 2, key, below

    start = none + jnp.iinfo(dtype).bits - 2, jnp.zeros((), dtype), none
    _, key, below = lax.while_loop(unsettled, set_bits, start)
    return key, below


def _count(flags: Sequence[jax.Array]) -> Sequence[jax.Array]:
    """How many are set in each of several bool arrays of one shape, in one pass.

    In one reduction of several operands: a plain sum of a large array XLA for CPU turns
    into a tree of sums, for which it writes the flags to memory as int32.
    """
    operands = tuple(f.astype(jnp.int32) for f in flags)
    zeros = (jnp.zeros((), jnp.int32),) * len(operands)
    return lax.reduce(operands, zeros, _add, tuple(range(flags[0].ndim)))


def _add(*columns: Sequence[jax.Array]) -> tuple[jax.Array, ...]:
    return tuple(functools.reduce(jnp.add, xs) for xs in zip(*columns, strict=True))


def _first(flags: jax.Array, count: jax.Array) -> jax.Array:
    """The first ``count`` flags in flat order; there are that many."""

    def keys_of(flags: jax.Array, zero: jax.Array) -> jax.Array:
        index = _flat_index(flags.shape, zero)
        return jnp.where(flags, index, ~jnp.zeros_like(index))

    end, _ = _split_at([flags], count, keys_of)
    return keys_of(flags, jnp.zeros((), jnp.int32)) < end


def _flat_index(shape: Sequence[int], zero: jax.Array) -> jax.Array:
    """Row-major index of every element, without a reshape that sharding would undo."""
    index, stride, zero = jnp.zeros(shape, jnp.uint32), 1, zero.astype(jnp.uint32)
    for axis in reversed(range(len(shape))):
        along = lax.broadcasted_iota(jnp.uint32, tuple(shape), axis) + zero
        index = index + along * jnp.uint32(stride)
        stride *= shape[axis]
    return index
