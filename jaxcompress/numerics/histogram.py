# SPDX-License-Identifier: Apache-2.0
"""Histograms of magnitude with fixed buckets, so that counts can be added."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = [
    "add",
    "bounds",
    "edges",
    "empty",
    "histogram",
]

# The bits of a float32 order magnitudes. The 8 exponent bits and the first 5 mantissa
# bits give buckets 1/32 to 1/64 of their value wide. Buckets cover 2**-32 to 2**32: smaller
# values go to the first one, which begins at zero, larger values to the last.
_MANTISSA = 5
_SHIFT = 23 - _MANTISSA
_FIRST = (127 - 32) << _MANTISSA
COUNT = 64 << _MANTISSA


def edges() -> np.ndarray:
    """Return the upper ends of the buckets, float32, ascending."""
    bits = (np.arange(1, COUNT + 1, dtype=np.uint32) + _FIRST) << _SHIFT
    return bits.astype(np.uint32).view(np.float32)


def histogram(x: jax.Array) -> jax.Array:
    """Count values by sign and magnitude.

    Args:
      x: float array of any shape. Zeros count as positive.

    Returns:
      int32 ``(2, buckets + 1)``: negative values, then the others. Bucket i holds
      magnitudes from ``edges()[i - 1]`` (or 0) up to but not including ``edges()[i]``. The
      extra last bucket counts NaN.
    """
    x = lax.stop_gradient(x).astype(jnp.float32)
    magnitude = lax.bitcast_convert_type(jnp.abs(x), jnp.uint32) >> _SHIFT
    bucket = jnp.clip(magnitude.astype(jnp.int32) - _FIRST, 0, COUNT - 1)
    bucket = jnp.where(jnp.isnan(x), COUNT, bucket)
    row = (x >= 0).astype(jnp.int32)
    return empty().at[row, bucket].add(1)


def empty() -> jax.Array:
    """Return an empty histogram."""
    return jnp.zeros((2, COUNT + 1), jnp.int32)


def add(a: jax.Array, b: jax.Array) -> jax.Array:
    """Add two histograms; beyond 2**30 values halve both, which keeps the shares."""
    total = jnp.sum(a.astype(jnp.float32)) + jnp.sum(b.astype(jnp.float32))
    return jnp.where(total < 2**30, a + b, ((a + 1) >> 1) + ((b + 1) >> 1))


def bounds(counts: jax.Array, share: float) -> tuple[jax.Array, jax.Array]:
    """Return the range that leaves out at most ``1 - share`` of the values on each side.

    Args:
      counts: int32 ``(2, buckets + 1)``, sums of ``histogram``.
      share: between 0.5 and 1.

    Returns:
      ``(low, high)``, the outer ends of the last buckets that stay; NaN if the histogram
      is empty or counted a NaN.
    """
    negative, positive = counts[:, :-1]
    ordered = jnp.concatenate([negative[::-1], positive])
    inner = np.concatenate([np.zeros(1, np.float32), edges()[:-1]])
    lows = jnp.concatenate([-edges()[::-1], inner])
    highs = jnp.concatenate([-inner[::-1], edges()])
    total = jnp.sum(ordered)
    # Compare counts of excluded values: int32 holds them exactly, a share does not.
    excluded = jnp.floor((1 - share) * total).astype(jnp.int32)
    high = highs[jnp.sum(jnp.cumsum(ordered[::-1]) > excluded) - 1]
    low = lows[jnp.argmax(jnp.cumsum(ordered) > excluded)]
    is_valid = (total > 0) & ~jnp.any(counts[:, -1])
    return jnp.where(is_valid, low, jnp.nan), jnp.where(is_valid, high, jnp.nan)
