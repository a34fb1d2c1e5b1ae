# SPDX-License-Identifier: Apache-2.0
"""Find the k smallest of many numbers, exactly and without a sort."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from . import _counts as counts
from ._counts import Number


def smallest(scores: jax.Array, count: jax.Array | int) -> jax.Array:
    """Mark exactly ``count`` elements: the smallest, ties broken by flat index.

    The result equals the first ``count`` entries of a stable argsort. Instead of a sort it
    uses bisection on bit patterns: at most 16 passes of a fused compare-and-count (8 for
    16-bit floats), and as many to break ties. It needs memory for a few counters only, and
    the passes shard: devices exchange only counters.

    Args:
      scores: float array of any shape, float32, bfloat16 or float16. NaN counts as the
        largest.
      count: number of elements to mark, traced or not; clipped to the size.

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
            f"scores must have fewer than 2**32 elements, got {scores.size}. Rank the "
            "layers of a stack one by one, or split the array."
        )
    return _smallest(scores, counts.number(count))


@jax.jit
def _smallest(scores: jax.Array, wanted: Number) -> jax.Array:
    threshold, below = _split_at([scores], wanted, lambda x, _: _ordered_keys(x))
    keys = _ordered_keys(scores)
    tied = keys == threshold
    return (keys < threshold) | _first(tied, counts.minus(wanted, below))


def smallest_per_leaf(
    leaves: Sequence[jax.Array], count: jax.Array | int
) -> list[jax.Array]:
    """Count how many of the ``count`` smallest elements overall each array holds.

    Ties are broken by position: earlier arrays come first. Nothing is concatenated.

    Args:
      leaves: float arrays of one dtype and any shapes.
      count: total number of smallest elements, traced or not: an integer, or, for 2**32
        and more, a float32 that is rounded to an integer.

    Returns:
      One uint32 scalar per array. They sum to ``count``, or to the total size if that is
      smaller.
    """
    return _smallest_per_leaf(list(leaves), counts.number(count))


@jax.jit
def _smallest_per_leaf(leaves: Sequence[jax.Array], missing: Number) -> list[jax.Array]:
    threshold, below_threshold = _split_at(
        leaves, missing, lambda x, _: _ordered_keys(x)
    )
    missing, per_leaf = counts.minus(missing, below_threshold), []
    for leaf in leaves:
        keys = _ordered_keys(leaf)
        below, tied = counts.count([keys < threshold, keys == threshold])
        ties = counts.clipped(missing, tied)
        per_leaf.append(below + ties)
        missing = counts.minus(missing, counts.number(ties))
    return per_leaf


def _ordered_keys(x: jax.Array) -> jax.Array:
    """Map floats to unsigned integers of the same order, by flipping negative ones."""
    bits = jnp.finfo(x.dtype).bits
    if bits == 64:
        raise TypeError("scores must be float32, bfloat16 or float16, got float64.")
    unsigned = jnp.uint32 if bits == 32 else jnp.uint16
    raw = lax.bitcast_convert_type(x, unsigned)
    top = jnp.asarray(1 << (bits - 1), unsigned)
    # A negative zero equals a positive one. Compare bits, because a float comparison may
    # treat subnormals as zeros.
    raw = jnp.where(raw == top, jnp.zeros_like(raw), raw)
    keys = jnp.where(raw >= top, ~raw, raw | top)
    return jnp.where(jnp.isnan(x), ~jnp.zeros_like(raw), keys)


def _split_at(
    arrays: Sequence[jax.Array],
    wanted: Number,
    keys_of: Callable[[jax.Array, jax.Array], jax.Array],
) -> tuple[jax.Array, Number]:
    """Find a key below which ``wanted`` elements lie, or as many as ties allow.

    Each pass fixes two bits, from the top. The search stops at the first key that splits
    exactly.

    Args:
      arrays: arrays to split.
      wanted: number of elements below the key; clipped to the total size.
      keys_of: ``(array, zero) -> keys``, unsigned integers of one dtype. Keys computed
        from no array (an index) must add ``zero`` early, which keeps them out of memory.

    Returns:
      The key, and the number of elements below it: ``wanted``, or fewer if only some of
      the elements with this key belong to the ``wanted`` smallest.
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
        # the scores. A barrier that includes the counter prevents that. Keys without an
        # operand (an index) need a zero that XLA cannot recognize as one.
        operands, shift, zero = lax.optimization_barrier(
            (tuple(arrays), shift, below.high >> 31)
        )
        digits = [jnp.asarray(i, dtype) << shift.astype(dtype) for i in (1, 2, 3)]
        candidates = [key | digit for digit in digits]
        below_candidates = [
            counts.count([keys_of(x, zero) < c for c in candidates]) for x in operands
        ]
        for candidate, column in zip(
            candidates, zip(*below_candidates, strict=True), strict=True
        ):
            total = counts.total(column)
            fits = ~counts.less(wanted, total)
            key = jnp.where(fits, candidate, key)
            below = counts.select(fits, total, below)
        return shift - 2, key, below

    start = jnp.int32(jnp.iinfo(dtype).bits - 2), jnp.zeros((), dtype), counts.number(0)
    _, key, below = lax.while_loop(unsettled, set_bits, start)
    return key, below


def _first(flags: jax.Array, wanted: Number) -> jax.Array:
    """Keep the first ``wanted`` flags in flat order, or all of them."""

    def keys_of(flags: jax.Array, zero: jax.Array) -> jax.Array:
        index = flat_index(flags.shape, zero)
        return jnp.where(flags, index, ~jnp.zeros_like(index))

    end, _ = _split_at([flags], wanted, keys_of)
    return keys_of(flags, jnp.uint32(0)) < end


def flat_index(shape: Sequence[int], zero: jax.Array) -> jax.Array:
    """Return each element's row-major index, without a reshape that breaks sharding."""
    index, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        along = lax.broadcasted_iota(jnp.uint32, tuple(shape), axis) + zero
        index = index + along * jnp.uint32(stride)
        stride *= shape[axis]
    return index
