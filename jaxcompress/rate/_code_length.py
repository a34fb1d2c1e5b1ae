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

from ..numerics import one_program

IMAGINED = 4.0
"""How many imagined codes the share of a row or column starts with."""

# What an adaptive coder pays until it knows the share of a row or column that is not
# empty. Measured on networks trained with this rate, against the file.
_LINE_BITS = 2.0
_LEAF_BITS = 8 * 16  # a scale and the head of a payload


class Values(NamedTuple):
    """What has been counted of a leaf, and is held until it is counted again."""

    bits: jax.Array  # float32 (2 * high + 1,): of the codes -high ... high; 0 for zero
    learning: jax.Array  # float32 []: bits until a coder knows these frequencies
    alike: jax.Array  # bool []: whether one share serves all rows and columns


@one_program("high")
def count_values(codes: jax.Array, high: int) -> Values:
    """Count the codes of a leaf.

    Args:
      codes: whole numbers in [-high, high], as floats of any shape.
      high: the largest code.
    """
    places = (codes + high).astype(jnp.int32).reshape(-1)
    counts = jnp.zeros(2 * high + 1, jnp.float32).at[places].add(1.0).at[high].set(0.0)
    # Half a logarithm of the number of samples, as for every frequency that is learned.
    in_use = jnp.sum((counts > 0).astype(jnp.float32))
    learning = in_use * jnp.log2(1 + jnp.sum(counts)) / 2
    # Small codes are likely before anything has been seen.
    prior = jnp.exp2(-jnp.abs(jnp.arange(-high, high + 1, dtype=jnp.float32)))
    counts = (counts + prior).at[high].set(0.0)
    bits = jnp.log2(jnp.sum(counts)) - jnp.log2(jnp.maximum(counts, 1e-30))
    nonzero = _as_matrix(codes) != 0
    alike = _length_if_alike(nonzero) < _length_by_lines(nonzero)
    return Values(bits.at[high].set(0.0), learning, alike)


@one_program()
def code_length(steps: jax.Array, values: Values) -> jax.Array:
    """Return the bits of the rounded steps, differentiable: float32 [].

    Args:
      steps: weights divided by their step size, float of any shape.
      values: what has been counted.
    """
    codes = _codes_of(steps, values)
    nonzero = codes != 0
    zero_or_not = jnp.where(
        values.alike, _length_if_alike(nonzero), _length_by_lines(nonzero)
    )
    own = values.bits[(codes + _high(values)).astype(jnp.int32)]
    value = zero_or_not + jnp.sum(own) + values.learning + _LEAF_BITS
    return lax.stop_gradient(value) + pull(steps, values)


@one_program()
def pull(steps: jax.Array, values: Values) -> jax.Array:
    """Return zero, with the slope of the code length for each weight: float32 [].

    The slope is the difference in bits between the two codes next to a weight, so a weight
    is pulled to the cheaper one, also inside the interval that rounds to zero.

    Args:
      steps: weights divided by their step size, float of any shape.
      values: what has been counted.
    """
    high = _high(values)
    matrix = _as_matrix(steps.astype(jnp.float32))
    fixed = jnp.clip(lax.stop_gradient(matrix), -high, high)
    below = jnp.clip(jnp.floor(fixed), -high, high - 1)
    nonzero = jnp.round(fixed) != 0
    more = jnp.where(values.alike, _more_if_alike(nonzero), _more_by_lines(nonzero))
    slope = jnp.diff(values.bits)[(below + high).astype(jnp.int32)]
    slope += jnp.where(below == 0, more, jnp.where(below == -1, -more, 0))
    slope = jnp.where(jnp.isnan(matrix), jnp.nan, slope)
    return jnp.sum(slope * (matrix - lax.stop_gradient(matrix)))


def _more_if_alike(nonzero: jax.Array) -> jax.Array:
    """Return how many bits more than a zero another code takes: float32 []."""
    share = _share(nonzero)
    return jnp.log2(1 - share) - jnp.log2(share)


def _more_by_lines(nonzero: jax.Array) -> jax.Array:
    """Return how many bits more than a zero each code would take: (rows, columns)."""
    share = _share(nonzero)
    odds = jnp.log2(1 - share) - jnp.log2(share)
    rows, columns = (_more_in_line(nonzero, axis, share) for axis in (1, 0))
    return rows + columns - odds


def _more_in_line(nonzero: jax.Array, axis: int, share: jax.Array) -> jax.Array:
    """Return the same by what else is in the line alone, for lines along an axis."""
    count = jnp.sum(nonzero.astype(jnp.float32), axis, keepdims=True)
    others = nonzero.shape[axis] - 1

    def more(ones: jax.Array) -> jax.Array:
        ones = jnp.clip(ones, 0, others)
        zeros = others - ones + IMAGINED * (1 - share)
        return jnp.log2(zeros) - jnp.log2(ones + IMAGINED * share)

    # Without the code itself. A logarithm a line, not one a code.
    return jnp.where(nonzero, more(count - 1), more(count))


def _length_if_alike(nonzero: jax.Array) -> jax.Array:
    share, more = _share(nonzero), _more_if_alike(nonzero)
    return nonzero.size * (share * more - jnp.log2(1 - share))


def _length_by_lines(nonzero: jax.Array) -> jax.Array:
    more = _more_by_lines(nonzero)
    # The bits of a flag whose odds are known: log2(1 + 2**more), with the sign of the flag.
    flags = jnp.where(nonzero, more, -more)
    bits = jnp.sum(jnp.logaddexp2(flags, 0.0))
    return bits + _LINE_BITS * _lines_in_use(nonzero)


def _lines_in_use(nonzero: jax.Array) -> jax.Array:
    """Return how many rows and columns of more than one code are not all zero."""
    counts = [
        jnp.sum(jnp.any(nonzero, axis).astype(jnp.float32))
        for axis in (0, 1)
        if nonzero.shape[axis] > 1
    ]
    return sum(counts, start=jnp.zeros(()))


def _share(nonzero: jax.Array) -> jax.Array:
    """Return the share of codes that are not zero, strictly between 0 and 1."""
    return (jnp.sum(nonzero.astype(jnp.float32)) + 0.5) / (nonzero.size + 1)


def _codes_of(steps: jax.Array, values: Values) -> jax.Array:
    high = _high(values)
    matrix = _as_matrix(lax.stop_gradient(steps).astype(jnp.float32))
    return jnp.clip(jnp.round(matrix), -high, high)


def _high(values: Values) -> int:
    return values.bits.shape[0] // 2


def _as_matrix(x: jax.Array) -> jax.Array:
    return x.reshape(-1, x.shape[-1] if x.ndim else 1)
