# SPDX-License-Identifier: Apache-2.0
"""Scales: how far apart the codes lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import split_tiles
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
    tiles, axes = split_tiles(weights, shape)
    # XLA may divide by a constant or multiply by its reciprocal, as it is compiled; this
    # leaves it no choice, so that jit and eager have the same bits.
    step = np.float32(1 / fmt.high)
    if fmt.binary:
        total = jnp.sum(jnp.abs(tiles), axes)
        return _positive(total / jnp.maximum(jnp.sum(tiles != 0, axes), 1)), None
    if fmt.symmetric:
        return _positive(jnp.max(jnp.abs(tiles), axes) * step), None
    low = jnp.minimum(jnp.min(tiles, axes), 0)
    high = jnp.maximum(jnp.max(tiles, axes), 0)
    scale = _positive((high - low) * step)
    return scale, jnp.clip(jnp.round(-low / scale), fmt.low, fmt.high)


def _positive(scale: jax.Array) -> jax.Array:
    """A tile of zeros, or of values too small to divide by, gets the scale 1."""
    return jnp.where(scale > jnp.finfo(scale.dtype).tiny, scale, 1)
