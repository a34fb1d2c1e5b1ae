# SPDX-License-Identifier: Apache-2.0
"""The k smallest of many numbers, exactly and without a sort."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from . import _counts as counts
from ._counts import Number


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

    Raises:
      TypeError: for float64 scores.
      ValueError: for 2**32 scores or more.

    Example:
      >>> import jax.numpy as jnp
      >>> smallest(jnp.array([3., 1., 2., 1.]), 1).tolist()
      [False, True, False, False]
    """
    if scores.size >= counts.LIMIT:
        raise ValueError(
            f"{scores.size} scores in one array are too many to rank: fewer than 2**32. "
            "Rank the layers of a stack one by one, or split the array."
        )
    return _smallest(scores, counts.number(count))


@jax.jit
def _smallest(scores: jax.Array, wanted: Number) -> jax.Array:
    threshold, held = _split_at([scores], wanted, lambda x, _: _ordered_keys(x))
    keys = _ordered_keys(scores)
    tied = keys == threshold
    return (keys < threshold) | _first(tied, counts.minus(wanted, held))


def smallest_per_leaf(
    leaves: Sequence[jax.Array], count: jax.Array | int
) -> list[jax.Array]:
    """How many of the ``count`` smallest elements of several arrays each of them holds.

    Ties are broken by position: earlier arrays give first. Nothing is concatenated.

    Args:
      leaves: float arrays of one dtype and any shapes.
      count: how many smallest elements to take in all, traced or not: an integer, or
        a float32 that is rounded to one, where there are 2**32 of them and more.

    Returns:
      One uint32 scalar an array; they add up to ``count``, or to all there are.
    """
    return _smallest_per_leaf(list(leaves), counts.number(count))


@jax.jit
def _smallest_per_leaf(leaves: Sequence[jax.Array], missing: Number) -> list[jax.Array]:
    threshold, held = _split_at(leaves, missing, lambda x, _: _ordered_keys(x))
    missing, found = counts.minus(missing, held), []
    for leaf in leaves:
        keys = _ordered_keys(leaf)
        below, tied = counts.count([keys < threshold, keys == threshold])
        ties = counts.clipped(missing, tied)
        found.append(below + ties)
        missing = counts.minus(missing, counts.number(ties))
    return found


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
    wanted: Number,
    keys_of: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, Number]:
    """A key below which ``wanted`` elements lie, or as many as ties allow.

    Found two bits a pass, from the top; it stops at the first key that divides exactly.

    Args:
      arrays: what to divide.
      wanted: how many; all there are, if it is more than that.
      keys_of: ``(array, zero) -> keys``, unsigned integers of one dtype. The zero is for
        keys made of nothing else: added early, it keeps them out of memory.

    Returns:
      The key, and how many elements lie below it: ``wanted``, or fewer if some but not
      all of those that have this key belong to the ``wanted`` smallest.
    """
    dtype = jax.eval_shape(keys_of, arrays[0], jnp.uint32(0)).dtype
    wanted = counts.clipped_to(wanted, sum(x.size for x in arrays))

    def unsettled(carry: tuple[jax.Array, jax.Array, Number]) -> jax.Array:
        shift, _, below = carry
        return (shift >= 0) & counts.less(below, wanted)

    def set_bits(
        carry: tuple[jax.Array, jax.Array, Number],
    ) -> tuple[jax.Array, jax.Array, Number]:
        shift, key, below = carry
        # XLA would compute the keys once, before the loop, and hold as much memory as
        # the scores. A barrier with the counter in it prevents that; keys without an
        # operand (an index) need a zero that XLA cannot tell is one.
        here, shift, zero = lax.optimization_barrier(
            (tuple(arrays), shift, below.high >> 31)
        )
        digits = [jnp.asarray(i, dtype) << shift.astype(dtype) for i in (1, 2, 3)]
        candidates = [key | digit for digit in digits]
        found = [counts.count([keys_of(x, zero) < c for c in candidates]) for x in here]
        for candidate, column in zip(candidates, zip(*found, strict=True), strict=True):
            number = counts.total(column)
            fits = ~counts.less(wanted, number)
            key = jnp.where(fits, candidate, key)
            below = counts.select(fits, number, below)
        return shift - 2, key, below

    start = jnp.int32(jnp.iinfo(dtype).bits - 2), jnp.zeros((), dtype), counts.number(0)
    _, key, below = lax.while_loop(unsettled, set_bits, start)
    return key, below


def _first(flags: jax.Array, wanted: Number) -> jax.Array:
    """The first ``wanted`` flags in flat order, or all of them."""

    def keys_of(flags: jax.Array, zero: jax.Array) -> jax.Array:
        index = _flat_index(flags.shape, zero)
        return jnp.where(flags, index, ~jnp.zeros_like(index))

    end, _ = _split_at([flags], wanted, keys_of)
    return keys_of(flags, jnp.uint32(0)) < end


def _flat_index(shape: Sequence[int], zero: jax.Array) -> jax.Array:
    """Row-major index of every element, without a reshape that sharding would undo."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        along = lax.broadcasted_iota(jnp.uint32, tuple(shape), axis) + zero
        index = index + along * jnp.uint32(stride)
        stride *= shape[axis]
    return index
