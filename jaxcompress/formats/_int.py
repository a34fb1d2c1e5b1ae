# SPDX-License-Identifier: Apache-2.0
"""Integer formats."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from ..numerics import one_program, ste
from ._format import ToInteger, nearest

_WIDTHS = (*range(1, 9), 16)


@dataclasses.dataclass(frozen=True)
class Int:
    """Integer format of 1 to 8 or 16 bits, symmetric or with a zero point.

    Symmetric codes run from ``-(2**(bits - 1) - 1)`` to ``2**(bits - 1) - 1``, so zero has
    a code and the grid is symmetric about it; 2 bits are ternary. Asymmetric codes run from
    0 to ``2**bits - 1`` around an integer zero point. One symmetric bit is the sign; an
    exact zero (a pruned weight) stays zero as a third symbol.

    Attributes:
      bits: 1 to 8, or 16. It may be a traced scalar, so that one program serves all
        widths; see ``quantize``. A traced float may be any value between 1 and 16: the
        number of codes, ``2**bits``, is rounded, and the bits receive a gradient.
      symmetric: True centers the grid on zero.
      narrow: True leaves out the smallest code: ``-2**(bits - 1)`` of symmetric codes, 0
        of asymmetric ones. None leaves it out for symmetric codes only.

    Raises:
      ValueError: for any other width.

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
                    f"bits must be a scalar, got shape {bits.shape}. For several widths, "
                    "vmap over a function that makes the format."
                )
            if isinstance(bits, Tracer):
                return
            value = float(bits)
            if not value.is_integer() and 1 <= value <= 16:
                return
            bits = int(value) if value.is_integer() else value
        # bool is a subclass of int, but not a number of bits.
        is_integer = isinstance(bits, int | np.integer) and type(bits) is not bool
        if not is_integer or bits not in _WIDTHS:
            raise ValueError(
                f"bits must be an integer from 1 to 8, or 16; got {bits!r}."
            )
        object.__setattr__(self, "bits", int(bits))
        if bits == 1 and not self.symmetric and self.narrow:
            raise ValueError(
                "Int(1, symmetric=False, narrow=True) has only one code; use narrow=False."
            )

    @property
    def scaled(self) -> bool:
        """True: values are divided by a scale."""
        return True

    @property
    def traced(self) -> bool:
        """True if the bits are an array."""
        return isinstance(self.bits, jax.Array)

    @property
    def binary(self) -> bool:
        """True if a code is just a sign; False for traced bits, whatever their value."""
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
          TypeError: if the bits are traced.
        """
        if self.traced:
            raise TypeError(
                "codes need a fixed width, but the bits are traced: finalize with "
                "Int(int(bits)), outside jit."
            )
        if self.symmetric:
            return np.dtype(np.int8 if self.bits <= 8 else np.int16)
        return np.dtype(np.uint8 if self.bits <= 8 else np.uint16)

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """Round values to codes, as floats; an exact zero stays zero."""
        if self.binary:
            return _sign(steps, to_integer)
        codes = _clip(to_integer(steps), *lax.stop_gradient((self.low, self.high)))
        if self.traced and self.symmetric:
            return jnp.where(self.bits == 1, _sign(steps, to_integer), codes)
        return codes

    def inside(self, steps: jax.Array) -> jax.Array | None:
        """Return where a straight-through gradient passes; None means everywhere.

        The slack is half a step; a whole step with a zero point, whose rounding shifts the
        grid.
        """
        if self.binary:
            return None
        slack = 0.5 if self.symmetric else 1.0
        passes = _within(steps, self.low - slack, self.high + slack)
        if self.traced and self.symmetric:
            return passes | (self.bits == 1)
        return passes

    def encode(self, levels: jax.Array) -> jax.Array:
        """Encode levels as integers."""
        return levels.astype(self.dtype)

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Decode codes to floats."""
        return codes.astype(dtype)


def _clip(x: jax.Array, low: Any, high: Any) -> jax.Array:
    bounds_are_static = isinstance(low, int) and isinstance(high, int)
    return _clip_to(x, low, high) if bounds_are_static else _clip_between(x, low, high)


def _clip_between(x: jax.Array, low: Any, high: Any) -> jax.Array:
    # At the bound the full gradient passes; jnp.clip would halve it.
    return jnp.where(x < low, low, jnp.where(x > high, high, x))


_clip_to = one_program("low", "high")(_clip_between)


@one_program()
def _within(x: jax.Array, low: Any, high: Any) -> jax.Array:
    return (x >= low) & (x <= high)


def _sign(steps: jax.Array, to_integer: ToInteger) -> jax.Array:
    position = 0.5 + 0.5 * _clip(steps, -1, 1)
    # Keep even the smallest value on its own side of the middle.
    nudged = 0.5 + 2.0**-23 * jnp.sign(steps)
    position = jnp.where(position == 0.5, nudged, position)
    return jnp.where(steps == 0, 0, 2 * _clip(to_integer(position), 0, 1) - 1)
