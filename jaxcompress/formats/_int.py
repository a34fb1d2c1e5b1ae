# SPDX-License-Identifier: Apache-2.0
"""Formats: which codes there are."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Int:
    """Integer codes of a fixed width.

    Symmetric codes run from ``-(2**(bits - 1) - 1)`` to ``2**(bits - 1) - 1``, so that
    zero has a code and the grid is the same on both sides: 2 bits are ternary. Asymmetric
    ones run from 0 to ``2**bits - 1`` around an integer zero point. One symmetric bit is
    the sign; an exact zero (a pruned weight) stays zero and is a third symbol.

    Attributes:
      bits: 1 to 8, or 16.
      symmetric: whether the grid is centered on zero.

    Raises:
      ValueError: for another number of bits.

    Example:
      >>> import jaxcompress as jc
      >>> jc.quantize.Int(4).low, jc.quantize.Int(4, symmetric=False).high
      (-7, 15)
    """

    bits: int
    symmetric: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.bits, int) or self.bits not in (*range(1, 9), 16):
            raise ValueError(
                f"bits={self.bits}: integers of 1 to 8 and of 16 bits are supported."
            )

    @property
    def binary(self) -> bool:
        """Whether a code is a sign."""
        return self.symmetric and self.bits == 1

    @property
    def low(self) -> int:
        """Smallest code."""
        return -self.high if self.symmetric else 0

    @property
    def high(self) -> int:
        """Largest code."""
        if self.symmetric:
            return max(1, 2 ** (self.bits - 1) - 1)
        return 2**self.bits - 1

    @property
    def dtype(self) -> np.dtype:
        """Integer dtype that holds a code in memory."""
        if self.symmetric:
            return np.dtype(np.int8 if self.bits <= 8 else np.int16)
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    def round(self, steps: jax.Array) -> jax.Array:
        """Nearest code of values in units of the scale, as floats; ties to even."""
        if self.binary:
            return jnp.sign(steps)
        return jnp.clip(jnp.round(steps), self.low, self.high)

    def inside(self, steps: jax.Array) -> jax.Array | None:
        """Where a straight-through gradient passes; None: everywhere.

        With slack at the bound (half a step; a whole one where rounding the zero point
        has shifted the grid), so that the element that sets the range is inside, however
        its quotient was rounded.
        """
        if self.binary:
            return None
        slack = 0.5 if self.symmetric else 1.0
        return (steps >= self.low - slack) & (steps <= self.high + slack)
