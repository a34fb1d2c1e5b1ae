# SPDX-License-Identifier: Apache-2.0
"""Integer codes on a scaled grid."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ..numerics import expand_tiles
from ._leaf import Leaf


def dequantize(
    codes: jax.Array,
    scale: jax.Array,
    zero_point: jax.Array | None,
    dtype: np.dtype | jnp.dtype,
) -> jax.Array:
    """``(codes - zero_point) * scale``, computed in the scale's dtype, cast last.

    The one place where codes become values: fake quantization and ``QArray.dense``
    both call it, which is why what was trained is what ships.

    Args:
      codes: integers, as an integer or a float array of any shape.
      scale: float array of the same rank; each element covers a tile of ``codes``.
      zero_point: like ``scale`` in shape, integer valued; None where it is zero.
      dtype: of the result.
    """
    steps = codes.astype(scale.dtype)
    if zero_point is not None:
        steps = steps - expand_tiles(zero_point.astype(scale.dtype), codes.shape)
    return (steps * expand_tiles(scale, codes.shape)).astype(dtype)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class QArray(Leaf):
    """A quantized array: ``dense() == (codes - zero_point) * scale``.

    Invariants:

    1. ``codes`` has the dense shape. ``scale`` has the same rank, and each of its
       dimensions divides that of ``codes``: one element of ``scale`` covers one tile.
       ``(1, 1)`` is per tensor, ``(1, n)`` per output channel, ``(m // g, n)`` per
       group of ``g``.
    2. ``zero_point`` is None (symmetric) or an integer array shaped like ``scale``, so
       that the value 0.0 is always on the grid.
    3. Codes fit in ``bits`` bits; the code of an exact zero is the zero point. In
       memory a code takes a whole byte or two; packing is the file's business.

    Attributes:
      codes: int8, uint8, int16 or uint16, of the dense shape.
      scale: float32 (float64 for float64 weights), strictly positive.
      zero_point: None, or an integer array shaped like ``scale``.
      bits: nominal bits a code (static).
      value_dtype: dtype of ``dense()`` (static).
    """

    codes: jax.Array
    scale: jax.Array
    zero_point: jax.Array | None
    bits: int = dataclasses.field(metadata={"static": True})
    value_dtype: np.dtype = dataclasses.field(metadata={"static": True})

    def dense(self) -> jax.Array:
        """``(codes - zero_point) * scale``."""
        return dequantize(self.codes, self.scale, self.zero_point, self.value_dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``codes``."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``dense()``."""
        return np.dtype(self.value_dtype)
