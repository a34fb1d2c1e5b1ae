# SPDX-License-Identifier: Apache-2.0
"""Stateless scales, computed from the values themselves: absmax and means."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ...formats import Format, Int
from ...leaves import Scales
from ...numerics import divide_by_tiles, expand_tiles, one_program, reduce_tiles

Scale = Callable[[jax.Array, Sequence[int], Format], tuple[Scales, jax.Array | None]]
"""Function ``(values, scale_shape, format) -> (scale, zero_point)``.

It takes float values and the shape of their scales. It returns a positive scale, as it is
stored, and an integer-valued float zero point (None if the format is symmetric), both of
that shape."""


def absmax(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """Choose the smallest scale that clips no value: the default for weights.

    A symmetric format uses the largest magnitude of each tile. An asymmetric one uses the
    range from minimum to maximum, widened to contain zero. A binary one uses the mean
    magnitude of the non-zeros, which has the least squared error.

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877; Rastegari et al., 2016,
      https://arxiv.org/abs/1603.05279
    """
    if fmt.binary:
        return _mean_magnitude(values, shape), None
    if is_mirrored(fmt):
        bound = _largest_magnitude(values, tuple(shape))
        scale, zero_point = of_range(-bound, bound, fmt)
    else:
        low, high = (reduce_tiles(f, values, shape) for f in (jnp.min, jnp.max))
        scale, zero_point = of_range(low, high, fmt)
    if isinstance(fmt, Int) and fmt.traced and fmt.symmetric:
        is_binary = jnp.asarray(fmt.bits) == 1
        scale = jnp.where(is_binary, _mean_magnitude(values, shape), scale)
    return scale, zero_point


def of_range(
    low: jax.Array, high: jax.Array, fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """Compute the scale and zero point whose grid spans a range from low to high.

    Args:
      low: float array, the smallest values. NaN (an unknown range) gives NaN.
      high: the largest values, of the same shape.
      fmt: the number format. A symmetric one gets the smallest scale that reaches both
        ends; an asymmetric one widens the range to contain zero; a format without
        scales gets ones.

    Returns:
      A positive scale and an integer-valued zero point (None if the format is
      symmetric), both of the shape of the range.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.scales import of_range
      >>> int8 = jc.formats.Int(8, symmetric=False)
      >>> scale, zero_point = of_range(jnp.array(-0.5), jnp.array(2.05), int8)
      >>> float(zero_point), f"{scale:.4f}"
      (50.0, '0.0100')
    """
    if not fmt.scaled:
        return jnp.where(jnp.isnan(low + high), low + high, jnp.ones_like(low)), None
    if fmt.symmetric:
        if is_mirrored(fmt):
            return _mirrored_scale(low, high, inverse(fmt.high)), None
        # A side without levels does not constrain the scale.
        scales = [
            end * inverse(level)
            for end, level in ((low, fmt.low), (high, fmt.high))
            if isinstance(level, jax.Array) or level
        ]
        return _positive(jnp.maximum(scales[0], scales[-1])), None
    return _shifted_scale(low, high, inverse(fmt.high - fmt.low), fmt.low, fmt.high)


def unit(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, jax.Array | None]:
    """Use the scale 1; with ``Int(1)`` this is BinaryConnect, with weights of ±1.

    References:
      Courbariaux et al., 2015, https://arxiv.org/abs/1511.00363
    """
    ones = jnp.ones(tuple(shape), jnp.promote_types(values.dtype, jnp.float32))
    return ones, None if fmt.symmetric else jnp.full_like(ones, fmt.low)


def rms(level: float = 1.0) -> Scale:
    """Scale the non-zeros of each tile to a root mean square of ``level``.

    Use it for formats whose levels are dense around one magnitude, such as posits. Values
    beyond the largest level are clipped. For weights in training, ``held(rms())``: rounding
    moves the root mean square.

    Args:
      level: positive, in units of the scale.

    Raises:
      ValueError: if the level is not positive.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> scale, _ = rms(0.5)(jnp.array([3.0, -4.0, 0.0, 5.0]), (1,), jc.formats.NF4)
      >>> f"{scale[0]:.3f}"  # (50 / 3) ** 0.5 / 0.5
      '8.165'
    """
    if not level > 0:
        raise ValueError(f"level must be positive, got {level}.")

    def scale(
        values: jax.Array, shape: Sequence[int], fmt: Format
    ) -> tuple[jax.Array, jax.Array | None]:
        if not fmt.symmetric:
            raise ValueError(
                f"rms needs a format without a zero point, got {fmt}. Use absmax."
            )
        largest = reduce_tiles(jnp.max, jnp.abs(values), shape)
        unit = jnp.where(largest > 0, largest, 1)  # squares must not overflow
        ratios = divide_by_tiles(values, unit)
        count = reduce_tiles(jnp.sum, values != 0, shape)
        square = reduce_tiles(jnp.sum, ratios * ratios, shape) / jnp.maximum(count, 1)
        return _positive(largest * jnp.sqrt(square) * inverse(level)), None

    return scale


def mean_above(threshold: float = 0.7) -> Scale:
    """Scale ternary weights, ``Int(2)``, as Ternary Weight Networks do.

    The scale is the mean magnitude of the weights above ``threshold`` times the mean.
    Weights nearer to zero than to the scale become zero, which has the least squared error
    for that scale. The paper zeroes the weights below the threshold, which is about the
    same.

    Args:
      threshold: in [0, 1), in units of the mean magnitude of the non-zeros.

    Raises:
      ValueError: if the threshold is out of range; when used, if the largest level of the
        format is not 1.

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
        raise ValueError(
            f"threshold must be in [0, 1) (the paper uses 0.7), got {threshold}."
        )

    def scale(
        values: jax.Array, shape: Sequence[int], fmt: Format
    ) -> tuple[jax.Array, jax.Array | None]:
        traced = isinstance(fmt, Int) and fmt.traced
        if traced or not fmt.symmetric or fmt.high != 1:
            raise ValueError(
                f"mean_above scales ternary weights and needs the format Int(2), got "
                f"{fmt}. Use absmax or mse() for other formats."
            )
        mean = _mean_magnitude(values, shape)
        large = jnp.abs(values) > threshold * expand_tiles(mean, values.shape)
        return _mean_magnitude(jnp.where(large, values, 0), shape), None

    return scale


def largest_level(fmt: Format) -> float | jax.Array:
    """Return the largest magnitude among a format's levels; an array if bits are traced."""
    low, high = fmt.low, fmt.high
    if isinstance(low, jax.Array) or isinstance(high, jax.Array):
        return jnp.maximum(jnp.float32(high), -jnp.float32(low))
    return float(max(high, -low))


def is_mirrored(fmt: Format) -> bool:
    """Return whether the levels are symmetric about zero."""
    if isinstance(fmt, Int):
        return fmt.symmetric and (fmt.binary or fmt.narrow is not False)
    return bool(fmt.low == -fmt.high)


def inverse(level: float | jax.Array) -> np.float32 | jax.Array:
    """Return a reciprocal to multiply by.

    Compiled code may divide by a constant or multiply by its reciprocal. Multiplying
    explicitly gives jit and eager the same bits.
    """
    return 1 / level if isinstance(level, jax.Array) else np.float32(1 / level)


@one_program()
def _mirrored_scale(
    low: jax.Array, high: jax.Array, inverse_level: np.float32 | jax.Array
) -> jax.Array:
    bound = jnp.maximum(jnp.abs(low), jnp.abs(high))
    return _positive(bound * inverse_level)


@one_program()
def _shifted_scale(
    low: jax.Array,
    high: jax.Array,
    inverse_levels: np.float32 | jax.Array,
    lowest: float | jax.Array,
    highest: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
    low, high = jnp.minimum(low, 0), jnp.maximum(high, 0)
    scale = _positive((high - low) * inverse_levels)
    zero_point = jnp.round(-low / scale) + lowest
    return scale, jnp.clip(zero_point, lowest, highest)


@one_program("shape")
def _largest_magnitude(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return reduce_tiles(jnp.max, jnp.abs(values), shape)


def _mean_magnitude(values: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Return the mean magnitude of the non-zeros in each tile."""
    return _mean_of_nonzeros(values, tuple(shape))


@one_program("shape")
def _mean_of_nonzeros(values: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    total = reduce_tiles(jnp.sum, jnp.abs(values), shape)
    count = reduce_tiles(jnp.sum, values != 0, shape)
    return _positive(total / jnp.maximum(count, 1))


@one_program()
def _positive(scale: jax.Array) -> jax.Array:
    """Replace scales that are zero, or too small to divide by, with 1."""
    return jnp.where(scale <= jnp.finfo(scale.dtype).tiny, 1, scale)
