# SPDX-License-Identifier: Apache-2.0
"""Scales: how far apart the codes lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import reduce_tiles
from ._formats import Int

Scale = Callable[[jax.Array, Sequence[int], Int], tuple[jax.Array, jax.Array | None]]
"""``(weights, scale_shape, format) -> (scale, zero_point)``: float weights and the shape
of their scales to a positive scale and an integer-valued float zero point (None where the
format is symmetric), both of that shape."""


def absmax(
    weights: jax.Array, shape: Sequence[int], fmt: Int
) -> tuple[jax.Array, jax.Array | None]:
    """The smallest scale that clips nothing: from the largest magnitude of each tile.

    For asymmetric formats the range from smallest to largest, widened to contain zero;
    for binary ones the mean magnitude of the non-zeros, which is nearest in squares.

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877; Rastegari et al., 2016,
      https://arxiv.org/abs/1603.05279
    """
    if fmt.binary:
        total = reduce_tiles(jnp.sum, jnp.abs(weights), shape)
        number = reduce_tiles(jnp.sum, weights != 0, shape)
        return _positive(total / jnp.maximum(number, 1)), None
    if fmt.symmetric:
        bound = reduce_tiles(jnp.max, jnp.abs(weights), shape)
        return of_range(-bound, bound, fmt)
    low, high = (reduce_tiles(f, weights, shape) for f in (jnp.min, jnp.max))
    return of_range(low, high, fmt)


def of_range(
    low: jax.Array, high: jax.Array, fmt: Int
) -> tuple[jax.Array, jax.Array | None]:
    """The scale and zero point whose grid spans a range.

    Args:
      low: float array, smallest values. NaN, of a range that is not known, gives NaN.
      high: largest values, of the same shape.
      fmt: which codes there are; a symmetric format takes the larger magnitude of the
        two, an asymmetric one widens the range to contain zero.

    Returns:
      A positive scale and an integer-valued zero point (None where the format is
      symmetric), of the shape of the range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> int8 = jc.quantize.Int(8, symmetric=False)
      >>> scale, zero_point = jc.quantize.of_range(jnp.array(-0.5), jnp.array(2.05), int8)
      >>> float(zero_point), f"{scale:.4f}"
      (50.0, '0.0100')
    """
    # XLA may divide by a constant or multiply by its reciprocal, as it is compiled; this
    # leaves it no choice, so that jit and eager have the same bits.
    step = np.float32(1 / fmt.high)
    if fmt.symmetric:
        return _positive(jnp.maximum(jnp.abs(low), jnp.abs(high)) * step), None
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = _positive((high - low) * step)
    return scale, jnp.clip(jnp.round(-low / scale), fmt.low, fmt.high)


def _positive(scale: jax.Array) -> jax.Array:
    """A tile of zeros, or of values too small to divide by, gets the scale 1."""
    return jnp.where(scale <= jnp.finfo(scale.dtype).tiny, 1, scale)
