# SPDX-License-Identifier: Apache-2.0
"""Low-precision floating-point formats, such as FP8 and FP4."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax import lax

from ..numerics import one_program
from ._format import ToInteger, nearest


@dataclasses.dataclass(frozen=True)
class Float:
    """Floating-point format of 4 to 16 bits; values beyond the range are clipped to it.

    Instances: ``E4M3``, ``E5M2`` (8 bits), ``E2M3``, ``E3M2`` (6 bits), ``E2M1`` (4 bits),
    and the casts ``BF16`` and ``F16``, which have no scale. Codes of 8 and 16 bits have the
    float dtype itself; codes of 4 and 6 bits are its bit patterns, one per byte.

    Attributes:
      name: name of a dtype of ``ml_dtypes`` or NumPy, with or without infinities.
      scaled: True if values are divided by a scale.

    Raises:
      ValueError: if there is no such dtype or it has another width.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> jc.formats.E2M1.round(jnp.array([0.2, 1.3, 2.5, -99.0])).tolist()
      [0.0, 1.5, 2.0, -6.0]

    References:
      Micikevicius et al., 2022, https://arxiv.org/abs/2209.05433; Rouhani et al., 2023,
      https://arxiv.org/abs/2310.10537
    """

    name: str
    scaled: bool = True

    def __post_init__(self) -> None:
        try:
            info = ml_dtypes.finfo(np.dtype(self.name))
            ends = np.array([-1.0, 0.0]).astype(np.dtype(self.name)).astype(float)
            # Exponent-only formats have no sign and no zero.
            fits = info.bits in (4, 6, 8, 16) and ends.tolist() == [-1.0, 0.0]
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise ValueError(
                "name must be a float dtype of ml_dtypes with 4, 6, 8 or 16 bits, such as "
                f"'float8_e4m3fn', got {self.name!r}."
            )

    @property
    def bits(self) -> int:
        """Bits per code."""
        return int(self._info.bits)

    @property
    def symmetric(self) -> bool:
        """True: there is no zero point."""
        return True

    @property
    def binary(self) -> bool:
        """False: codes are not just signs."""
        return False

    @property
    def low(self) -> float:
        """The negative of the largest value."""
        return -self.high

    @property
    def high(self) -> float:
        """The largest finite value."""
        return float(self._info.max)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the codes: the float dtype from 8 bits on, uint8 below."""
        return np.dtype(self.name) if self.bits >= 8 else np.dtype(np.uint8)

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """Round values to the format; ties go to the even mantissa.

        The result is computed, not cast: XLA may drop a cast there and back.
        """
        x = jnp.clip(steps.astype(jnp.float32), self.low, self.high)
        up, down = self._powers(x)
        return (to_integer(x * up) * down).astype(steps.dtype)

    def inside(self, steps: jax.Array) -> jax.Array:
        """Return where a straight-through gradient passes, with half a step of slack."""
        slack = 2.0 ** (np.floor(np.log2(self.high)) - self._info.nmant - 1)
        return jnp.abs(steps) <= np.float32(self.high + slack)

    def encode(self, levels: jax.Array) -> jax.Array:
        """Encode levels as values of the dtype or as bit patterns; -0 becomes 0."""
        if self.bits >= 8:
            # Otherwise a negative zero would survive the round trip.
            return jnp.where(levels == 0, 0, levels).astype(self.dtype)
        table = _table(self.name)
        positive = jnp.asarray(table[: len(table) // 2])
        pattern = jnp.searchsorted(positive, jnp.abs(levels), method="compare_all")
        sign = jnp.where(levels < 0, len(positive), 0)
        return (pattern + sign).astype(jnp.uint8)

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Decode codes to levels of a wider float dtype."""
        if self.bits >= 8:
            return codes.astype(dtype)
        return jnp.asarray(_table(self.name), dtype)[codes]

    @property
    def _info(self) -> Any:
        return ml_dtypes.finfo(np.dtype(self.name))

    @one_program("self")
    def _powers(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return 1/ulp and ulp of every value (unit in the last place): powers of two."""
        smallest, digits = int(self._info.minexp), int(self._info.nmant)
        pattern = lax.bitcast_convert_type(x, jnp.uint32)
        exponent = ((pattern >> 23) & 0xFF).astype(jnp.int32) - 127
        place = jnp.maximum(exponent, smallest) - digits
        # The ulps of bfloat16's smallest numbers are subnormal in float32.
        place = jnp.clip(place, -126, 126)
        return tuple(
            lax.bitcast_convert_type((p + 127) << 23, jnp.float32)
            for p in (-place, place)
        )  # pyright: ignore[reportReturnType]


@functools.cache
def _table(name: str) -> np.ndarray:
    """Return the value of every bit pattern."""
    dtype = np.dtype(name)
    patterns = np.arange(2 ** ml_dtypes.finfo(dtype).bits, dtype=np.uint8)
    return patterns.view(dtype).astype(np.float32)


E5M2 = Float("float8_e5m2")
E4M3 = Float("float8_e4m3fn")
E3M2 = Float("float6_e3m2fn")
E2M3 = Float("float6_e2m3fn")
E2M1 = Float("float4_e2m1fn")
BF16 = Float("bfloat16", scaled=False)
F16 = Float("float16", scaled=False)
