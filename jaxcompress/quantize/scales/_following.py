# SPDX-License-Identifier: Apache-2.0
"""Scales that follow what they scale: from the largest magnitude, or a mean of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...formats import Format, Int
from ...leaves import Scales
from ...numerics import expand_tiles, reduce_tiles

Scale = Callable[[jax.Array, Sequence[int], Format], tuple[Scales, jax.Array | None]]
"""``(values, scale_shape, format) -> (scale, zero_point)``: float values and the shape
of their scales to a positive scale (as it is stored) and an integer-valued float zero
point (None where the format is symmetric), both of that shape."""


def absmax(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """The smallest scale that clips nothing: from the largest magnitude of each tile.

    For asymmetric formats the range from smallest to largest, widened to contain zero;
    for binary ones the mean magnitude of the non-zeros, which is nearest in squares.

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877; Rastegari et al., 2016,
      https://arxiv.org/abs/1603.05279
    """
    if fmt.binary:
        return _mean_magnitude(values, shape), None
    if is_mirrored(fmt):
        bound = reduce_tiles(jnp.max, jnp.abs(values), shape)
        scale, zero_point = of_range(-bound, bound, fmt)
    else:
        low, high = (reduce_tiles(f, values, shape) for f in (jnp.min, jnp.max))
        scale, zero_point = of_range(low, high, fmt)
    if isinstance(fmt, Int) and fmt.traced and fmt.symmetric:
        one = jnp.asarray(fmt.bits) == 1
        scale = jnp.where(one, _mean_magnitude(values, shape), scale)
    return scale, zero_point


def of_range(
    low: jax.Array, high: jax.Array, fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """The scale and zero point whose grid spans a range.

    Args:
      low: float array, smallest values. NaN, of a range that is not known, gives NaN.
      high: largest values, of the same shape.
      fmt: which levels there are; a symmetric format takes the smallest scale that
        reaches both ends, an asymmetric one widens the range to contain zero. One that
        has no scale gets ones.

    Returns:
      A positive scale and an integer-valued zero point (None where the format is
      symmetric), of the shape of the range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> int8 = jc.formats.Int(8, symmetric=False)
      >>> scale, zero_point = jc.quantize.scales.of_range(jnp.array(-0.5), jnp.array(2.05), int8)
      >>> float(zero_point), f"{scale:.4f}"
      (50.0, '0.0100')
    """
    if not fmt.scaled:
        return jnp.where(jnp.isnan(low + high), low + high, jnp.ones_like(low)), None
    if fmt.symmetric:
        if is_mirrored(fmt):
            bound = jnp.maximum(jnp.abs(low), jnp.abs(high))
            return _positive(bound * _inverse(fmt.high)), None
        # Where there is no level on a side, nothing there has a say.
        scales = [
            end * _inverse(level)
            for end, level in ((low, fmt.low), (high, fmt.high))
            if isinstance(level, jax.Array) or level
        ]
        return _positive(jnp.maximum(scales[0], scales[-1])), None
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = _positive((high - low) * _inverse(fmt.high - fmt.low))
    zero_point = jnp.round(-low / scale) + fmt.low
    return scale, jnp.clip(zero_point, fmt.low, fmt.high)


def unit(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """The scale 1: with ``Int(1)``, BinaryConnect, whose weights are plus or minus 1.

    References:
      Courbariaux et al., 2015, https://arxiv.org/abs/1511.00363
    """
    ones = jnp.ones(tuple(shape), jnp.promote_types(values.dtype, jnp.float32))
    return ones, None if fmt.symmetric else jnp.full_like(ones, fmt.low)


def mean_above(threshold: float = 0.7) -> Scale:
    """The mean magnitude of what is larger than a multiple of the mean: ternary networks.

    With ``Int(2)`` the scale of Ternary Weight Networks. What becomes zero is what is
    nearer to zero than to the scale, which for that scale loses least in squares; the
    paper takes the threshold for it, which is about the same.

    Args:
      threshold: in units of the mean magnitude of the non-zeros.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> ternary = jc.quantize.fake_quant(
      ...     jnp.array([0.1, -0.9, 1.1]), jc.formats.Int(2), scale=mean_above()
      ... )
      >>> ternary.tolist()
      [0.0, -1.0, 1.0]

    References:
      Li et al., 2016, https://arxiv.org/abs/1605.04711
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold={threshold} is not in [0, 1); the paper has 0.7.")

    def scale(
        values: jax.Array, shape: Sequence[int], fmt: Format
    ) -> tuple[jax.Array, jax.Array | None]:
        traced = isinstance(fmt, Int) and fmt.traced
        if traced or not fmt.symmetric or fmt.high != 1:
            raise ValueError(
                f"mean_above is a scale of ternary weights, Int(2), not of {fmt}, whose "
                "largest level is not 1: take absmax or mse()."
            )
        mean = _mean_magnitude(values, shape)
        above = jnp.abs(values) > threshold * expand_tiles(mean, values.shape)
        kept = _mean_magnitude(jnp.where(above, values, 0), shape)
        return kept, None

    return scale


def largest_level(fmt: Format) -> jax.Array:
    """The largest magnitude of a format's levels, float32 []."""
    return jnp.maximum(jnp.float32(fmt.high), -jnp.float32(fmt.low))


def is_mirrored(fmt: Format) -> bool:
    """Whether the levels are the same on both sides of zero."""
    if isinstance(fmt, Int):
        return fmt.symmetric and (fmt.binary or fmt.narrow is not False)
    return bool(fmt.low == -fmt.high)


def _mean_magnitude(values: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Of the non-zeros of each tile."""
    total = reduce_tiles(jnp.sum, jnp.abs(values), shape)
    number = reduce_tiles(jnp.sum, values != 0, shape)
    return _positive(total / jnp.maximum(number, 1))


def _inverse(level: float | jax.Array) -> np.float32 | jax.Array:
    # XLA may divide by a constant or multiply by its reciprocal, as it is compiled; this
    # leaves it no choice, so that jit and eager have the same bits.
    return 1 / level if isinstance(level, jax.Array) else np.float32(1 / level)


def _positive(scale: jax.Array) -> jax.Array:
    """A tile of zeros, or of values too small to divide by, gets the scale 1."""
    return jnp.where(scale <= jnp.finfo(scale.dtype).tiny, 1, scale)
