# SPDX-License-Identifier: Apache-2.0
"""Block scales stored in 8 bits, as in MX formats and NVFP4."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ...formats import E4M3, Format
from ...leaves import QArray
from ...numerics import divide_by_tiles, reduce_tiles
from ._following import inverse, largest_level


def power_of_two(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[jax.Array, None]:
    """Choose power-of-two scales, stored as 8-bit exponents, as MX formats do.

    The exponent is that of the largest magnitude in the block minus that of the format's
    largest level. This follows the standard: values in about the top quarter of the range
    may be clipped.

    Returns:
      float8_e8m0fnu scales, and None for the zero point.

    Raises:
      ValueError: if the format is asymmetric.

    References:
      Open Compute Project, Microscaling Formats v1.0, 2023; Rouhani et al., 2023,
      https://arxiv.org/abs/2310.10537
    """
    if not fmt.symmetric:
        raise ValueError(
            f"power_of_two needs a symmetric format, because shared exponents have no "
            f"zero point; got {fmt}."
        )
    largest = reduce_tiles(jnp.max, jnp.abs(values), shape).astype(jnp.float32)
    level = jnp.asarray(largest_level(fmt), jnp.float32)
    exponent = _exponent(largest) - _exponent(level)
    # A block of zeros gets the scale 1; a block of tiny values the smallest scale.
    exponent = jnp.where(largest == 0, 0, jnp.clip(exponent, -126, 127))
    scale = lax.bitcast_convert_type((exponent + 127) << 23, jnp.float32)
    scale = jnp.where(jnp.isfinite(largest), scale, jnp.nan)
    return scale.astype(jnp.float8_e8m0fnu), None


def two_level(
    values: jax.Array, shape: Sequence[int], fmt: Format
) -> tuple[QArray, None]:
    """Choose one 8-bit float per block and one float32 per tensor, as NVFP4 does.

    Returns:
      The scales as a ``QArray`` of E4M3 codes, and None for the zero point.

    Raises:
      ValueError: if the format is asymmetric.

    References:
      NVIDIA, 2025, https://arxiv.org/abs/2509.25149
    """
    if not fmt.symmetric:
        raise ValueError(
            f"two_level needs a symmetric format, because NVFP4 scales have no zero "
            f"point; got {fmt}."
        )
    per_tensor = (1,) * values.ndim
    largest = reduce_tiles(jnp.max, jnp.abs(values), shape).astype(jnp.float32)
    level = largest_level(fmt)
    tensor_scale = reduce_tiles(jnp.max, largest, per_tensor)
    tensor_scale = tensor_scale * inverse(level * E4M3.high)
    tensor_scale = jnp.where(
        tensor_scale <= jnp.finfo(jnp.float32).tiny, 1, tensor_scale
    )
    tensor_scale = jnp.where(jnp.isfinite(tensor_scale), tensor_scale, jnp.nan)
    block_scales = E4M3.round(divide_by_tiles(largest * inverse(level), tensor_scale))
    # At least E4M3's smallest positive number: a zero scale would divide by zero.
    block_scales = jnp.maximum(block_scales, jnp.float32(2.0**-9))
    codes = E4M3.encode(block_scales)
    floats = jnp.dtype(jnp.float32)
    return (
        QArray(
            codes=codes,
            scale=tensor_scale,
            zero_point=None,
            format=E4M3,
            value_dtype=floats,
        ),
        None,
    )


def _exponent(x: jax.Array) -> jax.Array:
    """Return the exponent of the largest power of two not above x; int32."""
    pattern = lax.bitcast_convert_type(x, jnp.uint32)
    return ((pattern >> 23) & 0xFF).astype(jnp.int32) - 127
