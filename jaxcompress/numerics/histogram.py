# SPDX-License-Identifier: Apache-2.0
"""Counting values by magnitude, with fixed buckets, so that counts can be added."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# The bits of a float32 order magnitudes: 8 of exponent and the first 5 of the mantissa
# are buckets 1/32 to 1/64 of their value wide. Kept are those from 2**-32 to 2**32; what
# is smaller goes to the first one, which begins at zero, what is larger to the last.
_MANTISSA = 5
_SHIFT = 23 - _MANTISSA
_FIRST = (127 - 32) << _MANTISSA
COUNT = 64 << _MANTISSA


def edges() -> np.ndarray:
    """Upper ends of the buckets, float32, ascending."""
    bits = (np.arange(1, COUNT + 1, dtype=np.uint32) + _FIRST) << _SHIFT
    return bits.astype(np.uint32).view(np.float32)


def histogram(x: jax.Array) -> jax.Array:
    """How many values there are of each sign and magnitude.

    Args:
      x: float array of any shape. Zeros count as positive.

    Returns:
      int32 ``(2, buckets + 1)``: negative values and the others. Bucket i holds
      magnitudes from ``edges()[i - 1]`` (or 0) up to but not including ``edges()[i]``,
      the one after the last those that are NaN.
    """
    x = lax.stop_gradient(x).astype(jnp.float32).ravel()
    magnitude = lax.bitcast_convert_type(jnp.abs(x), jnp.uint32) >> _SHIFT
    bucket = jnp.clip(magnitude.astype(jnp.int32) - _FIRST, 0, COUNT - 1)
    bucket = jnp.where(jnp.isnan(x), COUNT, bucket)
    row = (x >= 0).astype(jnp.int32)
    return empty().at[row, bucket].add(1)


def empty() -> jax.Array:
    """The counts of no values."""
    return jnp.zeros((2, COUNT + 1), jnp.int32)


def add(a: jax.Array, b: jax.Array) -> jax.Array:
    """The counts of both; past 2**30 values half of each, which keeps the shares."""
    total = jnp.sum(a.astype(jnp.float32)) + jnp.sum(b.astype(jnp.float32))
    return jnp.where(total < 2**30, a + b, ((a + 1) >> 1) + ((b + 1) >> 1))


def bounds(counts: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """The range that leaves out at most ``1 - share`` of the values on each side.

    Args:
      counts: int32 ``(2, buckets + 1)``, sums of ``histogram``.
      share: between 0.5 and 1.

    Returns:
      ``(low, high)``, the outer ends of the last buckets that stay; NaN of no values, and
      if there was a NaN.
    """
    negative, positive = counts[:, :-1]
    ordered = jnp.concatenate([negative[::-1], positive])
    inner = np.concatenate([np.zeros(1, np.float32), edges()[:-1]])
    lows = jnp.concatenate([-edges()[::-1], inner])
    highs = jnp.concatenate([-inner[::-1], edges()])
    total = jnp.sum(ordered)
    # As a count of what is left out, which int32 holds exactly and a share does not.
    out = jnp.floor((1 - share) * total).astype(jnp.int32)
    high = highs[jnp.sum(jnp.cumsum(ordered[::-1]) > out) - 1]
    low = lows[jnp.argmax(jnp.cumsum(ordered) > out)]
    known = (total > 0) & ~jnp.any(counts[:, -1])
    return jnp.where(known, low, jnp.nan), jnp.where(known, high, jnp.nan)
