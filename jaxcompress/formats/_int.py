# SPDX-License-Identifier: Apache-2.0
"""Integers of a fixed width."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..numerics import ste
from ._format import ToInteger, nearest

_WIDTHS = (*range(1, 9), 16)


@dataclasses.dataclass(frozen=True)
class Int:
    """Integer codes of a fixed width.

    Symmetric codes run from ``-(2**(bits - 1) - 1)`` to ``2**(bits - 1) - 1``, so that
    zero has a code and the grid is the same on both sides: 2 bits are ternary. Asymmetric
    ones run from 0 to ``2**bits - 1`` around an integer zero point. One symmetric bit is
    the sign; an exact zero (a pruned weight) stays zero and is a third symbol.

    Attributes:
      bits: 1 to 8, or 16. Or a traced scalar, so that one program serves all widths: see
        ``quantize``. A traced float may be anything between 1 and 16; the number of
        codes, ``2**bits``, is then rounded, and the gradient goes to the bits.
      symmetric: whether the grid is centered on zero.
      narrow: whether the smallest code is left out, so that it is as far from zero as the
        largest: ``-2**(bits - 1)`` of symmetric codes, 0 of asymmetric ones. None: of
        symmetric codes.

    Raises:
      ValueError: for another number of bits.

    Example:
      >>> import jaxcompress as jc
      >>> jc.formats.Int(4).low, jc.formats.Int(4, symmetric=False).high
      (-7, 15)
      >>> jc.formats.Int(4, narrow=False).low
      -8
    """

    bits: int | jax.Array
    symmetric: bool = True
    narrow: bool | None = None

    def __post_init__(self) -> None:
        bits = self.bits
        if isinstance(bits, jax.Array):
            if bits.ndim:
                raise ValueError(
                    f"bits have shape {bits.shape}: one format has one width; vmap over a "
                    "function that makes the format, for several."
                )
            if isinstance(bits, Tracer):
                return
            known = float(bits)
            if not known.is_integer() and 1 <= known <= 16:
                return
            bits = int(known) if known.is_integer() else known
        # bool is an int, and no number of bits.
        whole = isinstance(bits, int | np.integer) and type(bits) is not bool
        if not whole or bits not in _WIDTHS:
            raise ValueError(
                f"bits={bits!r}: integers of 1 to 8 and of 16 bits are supported."
            )
        object.__setattr__(self, "bits", int(bits))
        if bits == 1 and not self.symmetric and self.narrow:
            raise ValueError("Int(1, symmetric=False, narrow=True) has one code only.")

    @property
    def scaled(self) -> bool:
        """Values are divided by a scale."""
        return True

    @property
    def traced(self) -> bool:
        """Whether the bits are an array."""
        return isinstance(self.bits, jax.Array)

    @property
    def binary(self) -> bool:
        """Whether a code is a sign. Not known of traced bits, which may be."""
        return self.symmetric and not self.traced and bool(self.bits == 1)

    @property
    def low(self) -> int | jax.Array:
        """Smallest code."""
        narrow = self.symmetric if self.narrow is None else self.narrow
        if self.symmetric:
            return -self.high if narrow or self.binary else -self.high - 1
        return int(narrow)

    @property
    def high(self) -> int | jax.Array:
        """Largest code."""
        if self.traced:
            bits = jnp.asarray(self.bits, jnp.float32)
            codes = jnp.exp2(bits - 1 if self.symmetric else bits)
            return jnp.maximum(1, ste(codes, jnp.round(codes)) - 1)
        bits = int(self.bits)
        return max(1, 2 ** (bits - 1) - 1) if self.symmetric else 2**bits - 1

    @property
    def dtype(self) -> np.dtype:
        """Integer dtype that holds a code in memory.

        Raises:
          TypeError: of traced bits.
        """
        if self.traced:
            raise TypeError(
                "bits are a traced number, and what ships has a fixed width: finalize "
                "with Int(int(bits)), outside of jit."
            )
        if self.symmetric:
            return np.dtype(np.int8 if self.bits <= 8 else np.int16)
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """The code beside every value, as floats; of an exact zero it is zero."""
        if self.binary:
            return _sign(steps, to_integer)
        codes = _clip(to_integer(steps), *lax.stop_gradient((self.low, self.high)))
        if self.traced and self.symmetric:
            return jnp.where(self.bits == 1, _sign(steps, to_integer), codes)
        return codes

    def inside(self, steps: jax.Array) -> jax.Array | None:
        """Where a straight-through gradient passes; None: everywhere.

        Slack is half a step; a whole one where rounding the zero point has shifted the
        grid.
        """
        if self.binary:
            return None
        slack = 0.5 if self.symmetric else 1.0
        passes = (steps >= self.low - slack) & (steps <= self.high + slack)
        if self.traced and self.symmetric:
            return passes | (self.bits == 1)
        return passes

    def encode(self, levels: jax.Array) -> jax.Array:
        """Codes, as integers."""
        return levels.astype(self.dtype)

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Codes, as floats."""
        return codes.astype(dtype)


def _clip(x: jax.Array, low: Any, high: Any) -> jax.Array:
    # At the bound itself the whole gradient passes; that of jnp.clip is halved.
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


def _sign(steps: jax.Array, to_integer: ToInteger) -> jax.Array:
    position = 0.5 + 0.5 * _clip(steps, -1, 1)
    # However small, a value lies on its side of the middle.
    beside = 0.5 + 2.0**-23 * jnp.sign(steps)
    position = jnp.where(position == 0.5, beside, position)
    return jnp.where(steps == 0, 0, 2 * _clip(to_integer(position), 0, 1) - 1)
