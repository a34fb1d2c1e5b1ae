# SPDX-License-Identifier: Apache-2.0
"""One array onto its grid: as floats with a gradient, or as codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..leaves import QArray, dequantize
from ..numerics import expand_tiles, ste
from ._formats import Int
from ._scales import Scale, absmax


class _Grid(NamedTuple):
    codes: jax.Array  # float, integer valued
    scale: jax.Array
    zero_point: jax.Array | None
    inside: jax.Array | None  # bool: where the straight-through gradient passes


def fake_quant(
    x: jax.Array,
    fmt: Int,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = absmax,
) -> jax.Array:
    """Round an array to its grid; backward, the identity where nothing is clipped.

    Simulated: the result is a float array and no faster to multiply by. It equals
    ``to_qarray(x, ...).dense()`` bit for bit.

    Args:
      x: float array of any shape.
      fmt: which codes there are.
      scale_shape: how many scales along each axis, of x's rank and dividing its shape;
        None: one scale.
      scale: how to choose them. No gradient flows through the choice.

    Returns:
      Array of the shape and dtype of ``x``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.quantize.fake_quant(jnp.array([0.1, -0.4, 1.0]), jc.quantize.Int(2)).tolist()
      [0.0, 0.0, 1.0]
    """
    grid = _grid(x, fmt, scale_shape, scale)
    value = dequantize(grid.codes, grid.scale, grid.zero_point, x.dtype)
    return ste(x, value, grid.inside)


def to_qarray(
    x: jax.Array,
    fmt: Int,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = absmax,
) -> QArray:
    """The codes and scales of ``fake_quant``, with the same arguments."""
    grid = _grid(x, fmt, scale_shape, scale)
    zero_point = grid.zero_point
    return QArray(
        codes=grid.codes.astype(fmt.dtype),
        scale=grid.scale,
        zero_point=None if zero_point is None else zero_point.astype(fmt.dtype),
        bits=fmt.bits,
        value_dtype=x.dtype,
    )


def _grid(x: jax.Array, fmt: Int, shape: Sequence[int] | None, choose: Scale) -> _Grid:
    # 16-bit floats are rounded in float32 and cast last: their own 8 or 11 bits of
    # precision would merge neighboring codes.
    wide = lax.stop_gradient(x).astype(jnp.promote_types(x.dtype, jnp.float32))
    scale, zero_point = choose(wide, (1,) * x.ndim if shape is None else shape, fmt)
    steps = wide / expand_tiles(scale, x.shape)
    if zero_point is None:
        return _Grid(fmt.round(steps), scale, None, fmt.inside(steps))
    offset = expand_tiles(zero_point, x.shape)
    # Rounded before the shift: an exact zero lands on the zero point, ties and all.
    codes = fmt.round(jnp.round(steps) + offset)
    return _Grid(codes, scale, zero_point, fmt.inside(steps + offset))
