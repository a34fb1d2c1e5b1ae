# SPDX-License-Identifier: Apache-2.0
"""Quantized leaves: codes on a scaled grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..formats import Format
from ..numerics import expand_tiles, one_program
from ._leaf import Leaf, dense

Scales = jax.Array | Leaf
"""Scales as stored: an array of any float dtype, or a leaf if the scales are quantized."""


def scales_as_floats(scale: Scales, dtype: np.dtype | jnp.dtype) -> jax.Array:
    """Convert stored scales to an array to compute with.

    Args:
      scale: the scales as stored.
      dtype: dtype of the scaled values. The result is float32, or float64 for float64.
    """
    return dense(scale).astype(jnp.promote_types(dtype, jnp.float32))


@one_program("dtype")
def dequantize(
    levels: jax.Array,
    scale: jax.Array,
    zero_point: jax.Array | None,
    dtype: np.dtype | jnp.dtype,
) -> jax.Array:
    """Turn levels into values: ``(levels - zero_point) * scale``.

    The product is computed in the dtype of the scale and cast last. Both fake quantization
    and ``QArray.dense`` call this function, so the trained values equal the exported ones.

    Args:
      levels: float array of any shape, in units of the scale.
      scale: float array of the same rank; each element covers a tile of ``levels``.
      zero_point: integer-valued array of the shape of ``scale``; None for zero.
      dtype: dtype of the result.
    """
    steps = levels.astype(scale.dtype)
    if zero_point is not None:
        steps = steps - expand_tiles(zero_point.astype(scale.dtype), levels.shape)
    return (steps * expand_tiles(scale, levels.shape)).astype(dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class QArray(Leaf):
    """Store a quantized array: ``dense() == (levels - zero_point) * scale``.

    Invariants:

    1. ``codes`` has the dense shape; ``format`` maps each code to its level. ``scale``
       has the same rank, and each of its dimensions divides that of ``codes``:
       one element of ``scale`` covers one tile. ``(1, 1)`` is per tensor, ``(1, n)`` per
       output channel, ``(m // g, n)`` per group of ``g``.
    2. ``zero_point`` is None (symmetric) or an integer array shaped like ``scale``, so
       that the value 0.0 is always on the grid.
    3. A code takes one or two whole bytes in memory, unless it is packed (see
       ``pack_codes``). A saved file always packs codes.

    Attributes:
      codes: of the format's dtype and the dense shape, or ``PackedCodes`` thereof.
      scale: strictly positive; float32 (float64 for float64 weights), a narrower float
        dtype, or another ``QArray``.
      zero_point: None, or an integer array shaped like ``scale``.
      format: number format of the codes (static).
      value_dtype: dtype of ``dense()`` (static).
    """

    codes: Any  # jax.Array or PackedCodes
    scale: Any  # Scales
    zero_point: jax.Array | None
    format: Format = dataclasses.field(metadata={"static": True})
    value_dtype: np.dtype = dataclasses.field(metadata={"static": True})

    def dense(self) -> jax.Array:
        """Return ``(levels - zero_point) * scale``."""
        scale = scales_as_floats(self.scale, self.value_dtype)
        levels = self.format.decode(dense(self.codes), scale.dtype)
        return dequantize(levels, scale, self.zero_point, self.value_dtype)

    @property
    def bits(self) -> int:
        """Nominal bits per code."""
        return int(self.format.bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``codes``."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``dense()``."""
        return np.dtype(self.value_dtype)
