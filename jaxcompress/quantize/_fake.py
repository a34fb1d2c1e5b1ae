# SPDX-License-Identifier: Apache-2.0
"""Quantize one array: to floats with a gradient (fake quantization), or to codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from .._signatures import name_defaults
from ..formats import Format, ToInteger, nearest
from ..leaves import QArray, Scales, dequantize, scales_as_floats
from ..numerics import divide_by_tiles, expand_tiles
from .gradients import Gradient, Rounded, straight_through
from .scales._following import Scale
from .scales._stateful import suited


class _Grid(NamedTuple):
    steps: jax.Array  # constant
    levels: jax.Array  # differentiable through a learned rounding
    stored: Scales
    scale: jax.Array  # ``stored`` as floats
    zero_point: jax.Array | None


@name_defaults
def fake_quant(
    x: jax.Array,
    fmt: Format,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = suited,
    to_integer: ToInteger = nearest,
    gradient: Gradient = straight_through,
) -> jax.Array:
    """Simulate quantization of one array in training, with a straight-through gradient.

    The result is a float array, so products with it are not faster. It equals
    ``to_qarray(x, ...).dense()`` bit for bit.

    Args:
      x: float array of any shape.
      fmt: the number format.
      scale_shape: number of scales along each axis, of the rank of ``x``; each entry
        divides the axis. None uses one scale.
      scale: ``Scale`` that computes the scales; it sees ``x`` as a constant.
      to_integer: rounding function: ``nearest``, or the result of ``Rounding.read``.
      gradient: how the backward pass treats rounding. A learned scale needs
        ``through_scale``.

    Returns:
      Array of the shape and dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.quantize.fake_quant(jnp.array([0.1, -0.4, 1.0]), jc.formats.Int(2)).tolist()
      [0.0, 0.0, 1.0]
    """
    grid = _grid(x, fmt, scale_shape, scale, to_integer)
    value = dequantize(
        grid.levels, *lax.stop_gradient((grid.scale, grid.zero_point)), x.dtype
    )
    zero_point = grid.zero_point
    surrogate = gradient(
        Rounded(
            x,
            grid.steps,
            lax.stop_gradient(grid.levels),
            expand_tiles(grid.scale, x.shape),
            None if zero_point is None else expand_tiles(zero_point, x.shape),
            fmt,
        )
    )
    # Not x + (value - x): its rounding would turn a grid of 16 values into more. The
    # difference before the cast, since a surrogate may be beyond the range of float16.
    return value + (surrogate - lax.stop_gradient(surrogate)).astype(x.dtype)


@name_defaults
def to_qarray(
    x: jax.Array,
    fmt: Format,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = suited,
    to_integer: ToInteger = nearest,
) -> QArray:
    """Quantize one array to codes and scales, with the arguments of ``fake_quant``.

    Under ``jit``, NaN and infinity give meaningless codes. ``quantize`` and ``compress``
    raise an error that names the leaf.
    """
    grid = _grid(x, fmt, scale_shape, scale, to_integer)
    codes = fmt.encode(grid.levels)
    zero_point = grid.zero_point
    return QArray(
        codes=codes,
        scale=grid.stored,
        zero_point=None if zero_point is None else zero_point.astype(codes.dtype),
        format=fmt,
        value_dtype=x.dtype,
    )


def _grid(
    x: jax.Array,
    fmt: Format,
    shape: Sequence[int] | None,
    scale_fn: Scale,
    to_integer: ToInteger,
) -> _Grid:
    # Round 16-bit floats in float32 and cast last: with their own 8 or 11 bits of
    # precision, neighboring codes would merge.
    wide = lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    stored, zero_point = scale_fn(wide, (1,) * x.ndim if shape is None else shape, fmt)
    scale = scales_as_floats(stored, x.dtype)
    steps = divide_by_tiles(wide, lax.stop_gradient(scale))
    if zero_point is None:
        return _Grid(steps, fmt.round(steps, to_integer), stored, scale, None)
    offset = expand_tiles(lax.stop_gradient(zero_point), x.shape)
    # Round before the shift, so that an exact zero always lands on the zero point.
    levels = fmt.round(to_integer(steps) + offset, lambda whole: whole)
    return _Grid(steps + offset, levels, stored, scale, zero_point)
