# SPDX-License-Identifier: Apache-2.0
"""How many bits the codes of a leaf take in a file, with a slope for every weight.

A leaf is a matrix of codes: rows are its leading axes, columns its last one. The model is
that of the file's codec ``contexts``:

- Whether a code is zero depends on how many others in its row and in its column are. The
  two are independent evidence, so the odds against the leaf's own share multiply. Each
  share is that of the *other* codes, as an adaptive coder knows it, plus a few imagined
  codes with the share of the whole leaf.
- Codes that are not zero have one distribution for the leaf, by counting.
- If rows and columns are about alike, one share for the whole leaf takes fewer bits, and
  counts.

Nothing here is learned by gradients: shares by counting minimize the code length, so its
derivative with respect to them is zero.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

IMAGINED = 4.0
"""How many imagined codes the share of a row or column starts with."""

# What an adaptive coder pays until it knows the share of a row or column that is not
# empty. Measured on networks trained with this rate, against the file.
_LINE_BITS = 2.0
_LEAF_BITS = 8 * 12  # a scale and the head of a payload


class Values(NamedTuple):
    """Bits of the codes that are not zero, by their value."""

    bits: jax.Array  # float32 (2 * high + 1,): of the codes -high ... high; 0 for zero
    learning: jax.Array  # float32 []: bits until a coder knows the frequencies


def count_values(codes: jax.Array, high: int) -> Values:
    """Return the bits of each value as its frequency among the nonzero codes says.

    Args:
      codes: whole numbers in [-high, high], as floats of any shape.
      high: the largest code.
    """
    places = (codes + high).astype(jnp.int32).reshape(-1)
    counts = jnp.zeros(2 * high + 1, jnp.float32).at[places].add(1.0)
    # Small codes are likely before anything has been seen.
    prior = jnp.exp2(-jnp.abs(jnp.arange(-high, high + 1, dtype=jnp.float32)))
    counts = counts.at[high].set(0.0)
    # Half a logarithm of the number of samples, as for every frequency that is learned.
    in_use = jnp.sum((counts > 0).astype(jnp.float32))
    learning = in_use * jnp.log2(1 + jnp.sum(counts)) / 2
    counts = (counts + prior).at[high].set(0.0)
    bits = jnp.log2(jnp.sum(counts)) - jnp.log2(jnp.maximum(counts, 1e-30))
    return Values(bits.at[high].set(0.0), learning)


def code_length(steps: jax.Array, values: Values) -> jax.Array:
    """Return the bits of the rounded steps, differentiable: float32 [].

    The value is that of the rounded codes. The slope for each weight is the difference in
    bits between the two codes next to it, so a weight is pulled to the cheaper one, also
    inside the interval that rounds to zero.

    Args:
      steps: weights divided by their step size, float of any shape.
      values: bits of the values.
    """
    high = values.bits.shape[0] // 2
    matrix = _as_matrix(steps.astype(jnp.float32))
    fixed = jnp.clip(lax.stop_gradient(matrix), -high, high)
    codes = jnp.round(fixed)
    zero, other, learning = _zero_or_not(codes != 0)

    def bits_of(codes: jax.Array) -> jax.Array:
        own = values.bits[(codes + high).astype(jnp.int32)]
        return jnp.where(codes == 0, zero, other + own)

    below = jnp.clip(jnp.floor(fixed), -high, high - 1)
    slope = bits_of(below + 1) - bits_of(below)
    moved = matrix - lax.stop_gradient(matrix)  # zero, with a gradient
    learning = learning + values.learning + _LEAF_BITS
    return jnp.sum(bits_of(codes)) + jnp.sum(slope * moved) + learning


def _zero_or_not(nonzero: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the bits of a zero and of another code, and those of learning the shares.

    Args:
      nonzero: bool (rows, columns).

    Returns:
      Float32 arrays of the same shape, and a scalar.
    """
    ones = nonzero.astype(jnp.float32)
    share = jnp.clip(jnp.mean(ones), 1e-6, 1 - 1e-6)
    one, none = -jnp.log2(share), -jnp.log2(1 - share)
    alike = ones.size * (share * one + (1 - share) * none)
    zero, other = _by_lines(ones)
    learning = _LINE_BITS * _lines_in_use(nonzero)
    by_lines = jnp.sum(jnp.where(nonzero, other, zero)) + learning
    return (
        jnp.where(alike < by_lines, none, zero),
        jnp.where(alike < by_lines, one, other),
        jnp.where(alike < by_lines, 0, learning),
    )


def _lines_in_use(nonzero: jax.Array) -> jax.Array:
    """Return how many rows and columns of more than one code are not all zero."""
    lines = [jnp.any(nonzero, 1 - axis) for axis in (0, 1)]
    counts = [
        jnp.sum(line.astype(jnp.float32))
        for line, length in zip(lines, reversed(nonzero.shape), strict=True)
        if length > 1
    ]
    return sum(counts, start=jnp.zeros(()))


def _by_lines(ones: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the bits of a zero and of another code, by their row and their column."""
    rows, columns = ones.shape
    share = (jnp.sum(ones) - ones + 0.5) / (rows * columns)

    def others(axis: int, number: int) -> tuple[jax.Array, jax.Array]:
        count = jnp.sum(ones, axis, keepdims=True) - ones
        return count + IMAGINED * share, number - 1 - count + IMAGINED * (1 - share)

    row_ones, row_zeros = others(1, columns)
    column_ones, column_zeros = others(0, rows)
    one = row_ones * column_ones * (1 - share)
    zero = row_zeros * column_zeros * share
    total = jnp.log2(one + zero)
    return total - jnp.log2(zero), total - jnp.log2(one)


def _as_matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)
