# SPDX-License-Identifier: Apache-2.0
"""Scales of 8 bits, shared by the values of a block."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ...formats import E4M3, Format
from ...leaves import QArray
from ...numerics import reduce_tiles
from ._following import largest_level


def power_of_two(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, None]:
    """A power of two, stored as its exponent in 8 bits: the scales of MX formats.

    The exponent of the largest magnitude, less that of the format's largest level, so up
    to the last quarter or so of the range is clipped, as the standard says.

    Returns:
      float8_e8m0fnu scales, and no zero point.

    References:
      Open Compute Project, Microscaling Formats v1.0, 2023; Rouhani et al., 2023,
      https://arxiv.org/abs/2310.10537
    """
    if not fmt.symmetric:
        raise ValueError(f"{fmt} is asymmetric; shared exponents have no zero point.")
    largest = reduce_tiles(jnp.max, jnp.abs(values), shape).astype(jnp.float32)
    shared = _exponent(largest) - _exponent(largest_level(fmt))
    # A block of zeros gets the scale 1; what is too small, the smallest there is.
    shared = jnp.where(largest == 0, 0, jnp.clip(shared, -126, 127))
    scale = lax.bitcast_convert_type((shared + 127) << 23, jnp.float32)
    scale = jnp.where(jnp.isfinite(largest), scale, jnp.nan)
    return scale.astype(jnp.float8_e8m0fnu), None


def two_level(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[QArray, None]:
    """A float of 8 bits for each block and a float32 for the tensor: NVFP4's scales.

    Returns:
      The scales as a ``QArray`` of E4M3 codes, and no zero point.

    References:
      NVIDIA, 2025, https://arxiv.org/abs/2509.25149
    """
    if not fmt.symmetric:
        raise ValueError(f"{fmt} is asymmetric; NVFP4's scales have no zero point.")
    whole = (1,) * values.ndim
    largest = reduce_tiles(jnp.max, jnp.abs(values), shape).astype(jnp.float32)
    high = largest_level(fmt)
    top = reduce_tiles(jnp.max, largest, whole) / (high * E4M3.high)
    top = jnp.where(top <= jnp.finfo(jnp.float32).tiny, 1, top)
    top = jnp.where(jnp.isfinite(top), top, jnp.nan)
    steps = E4M3.round(largest / high / top)
    # Nothing is divided by zero: the smallest number of the format instead.
    steps = jnp.maximum(steps, jnp.float32(2.0**-9))
    codes = E4M3.encode(steps)
    floats = jnp.dtype(jnp.float32)
    return (
        QArray(
            codes=codes, scale=top, zero_point=None, format=E4M3, value_dtype=floats
        ),
        None,
    )


def _exponent(x: jax.Array) -> jax.Array:
    """Of the largest power of two that is not larger; int32."""
    pattern = lax.bitcast_convert_type(x, jnp.uint32)
    return ((pattern >> 23) & 0xFF).astype(jnp.int32) - 127
