# SPDX-License-Identifier: Apache-2.0
"""Codes on a scaled grid."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..formats import Format
from ..numerics import expand_tiles
from ._leaf import Leaf, dense

Scales = jax.Array | Leaf
"""Scales as they are stored: an array of any float dtype, or a leaf, so that scales can be
quantized too."""


def scales_as_floats(scale: Scales, dtype: np.dtype | jnp.dtype) -> jax.Array:
    """Stored scales as an array to compute with.

    Args:
      scale: as stored.
      dtype: of what they scale; the result is float32, or float64 for float64.
    """
    return dense(scale).astype(jnp.promote_types(dtype, jnp.float32))


def dequantize(
    levels: jax.Array,
    scale: jax.Array,
    zero_point: jax.Array | None,
    dtype: np.dtype | jnp.dtype,
) -> jax.Array:
    """``(levels - zero_point) * scale``, computed in the scale's dtype, cast last.

    The one place where levels become values: fake quantization and ``QArray.dense``
    both call it, which is why what was trained is what ships.

    Args:
      levels: float array of any shape, in units of the scale.
      scale: float array of the same rank; each element covers a tile of ``levels``.
      zero_point: like ``scale`` in shape, integer valued; None where it is zero.
      dtype: of the result.
    """
    steps = levels.astype(scale.dtype)
    if zero_point is not None:
        steps = steps - expand_tiles(zero_point.astype(scale.dtype), levels.shape)
    return (steps * expand_tiles(scale, levels.shape)).astype(dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class QArray(Leaf):
    """A quantized array: ``dense() == (levels - zero_point) * scale``.

    Invariants:

    1. ``codes`` has the dense shape; ``format`` says which level each code stands for.
       ``scale`` has the same rank, and each of its dimensions divides that of ``codes``:
       one element of ``scale`` covers one tile. ``(1, 1)`` is per tensor, ``(1, n)`` per
       output channel, ``(m // g, n)`` per group of ``g``.
    2. ``zero_point`` is None (symmetric) or an integer array shaped like ``scale``, so
       that the value 0.0 is always on the grid.
    3. A code takes a whole byte or two in memory, unless it is packed: see
       ``pack_codes``. The file packs them anyway.

    Attributes:
      codes: of the format's dtype and the dense shape, or ``PackedCodes`` of them.
      scale: strictly positive; float32 (float64 for float64 weights), or what the scale
        is stored as: a dtype of few bits, another ``QArray``.
      zero_point: None, or an integer array shaped like ``scale``.
      format: what the codes mean (static).
      value_dtype: dtype of ``dense()`` (static).
    """

    codes: Any  # jax.Array, mostly
    scale: Any  # jax.Array, mostly
    zero_point: jax.Array | None
    format: Format = dataclasses.field(metadata={"static": True})
    value_dtype: np.dtype = dataclasses.field(metadata={"static": True})

    def dense(self) -> jax.Array:
        """``(levels - zero_point) * scale``."""
        scale = scales_as_floats(self.scale, self.value_dtype)
        levels = self.format.decode(dense(self.codes), scale.dtype)
        return dequantize(levels, scale, self.zero_point, self.value_dtype)

    @property
    def bits(self) -> int:
        """Nominal bits a code."""
        return int(self.format.bits)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``codes``."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``dense()``."""
        return np.dtype(self.value_dtype)
