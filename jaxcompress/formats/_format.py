# SPDX-License-Identifier: Apache-2.0
"""The protocol of number formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

ToInteger = Callable[[jax.Array], jax.Array]
"""Rounding function: maps each float to one of its two neighboring integers."""

nearest: ToInteger = jnp.round
"""Round to the nearest integer, ties to even: the default of every format."""


class Format(Protocol):
    """Define a number format: a finite set of levels and the codes that store them.

    Levels are in units of a scale.

    Laws:

    1. ``decode(encode(levels)) == levels`` for every result of ``round``.
    2. ``round`` is idempotent: it leaves levels unchanged.
    3. Zero is a level, so pruned weights stay zero. With a zero point, that level is the
       zero point.
    4. ``round`` is differentiable only through ``to_integer``.

    A format may have an attribute ``rms_level``, which says that another scale suits it
    than the one that makes the largest value the largest level; see ``Levels``.
    """

    @property
    def bits(self) -> int | jax.Array:
        """Nominal bits per code; an array if the bits are traced."""
        ...

    @property
    def symmetric(self) -> bool:
        """True if there is no zero point."""
        ...

    @property
    def scaled(self) -> bool:
        """True if values are divided by a scale; False for a plain cast."""
        ...

    @property
    def binary(self) -> bool:
        """True if a code is just a sign."""
        ...

    @property
    def low(self) -> float | jax.Array:
        """Smallest level."""
        ...

    @property
    def high(self) -> float | jax.Array:
        """Largest level."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """Dtype that holds a code in memory."""
        ...

    def round(self, steps: jax.Array, to_integer: ToInteger = nearest) -> jax.Array:
        """Round every value to one of its two neighboring levels, as floats.

        Args:
          steps: float array, values in units of the scale.
          to_integer: chooses the neighbor. It gets the position of a value between its
            neighbors (0 to 1, plus an integer) and returns an integer.
        """
        ...

    def inside(self, steps: jax.Array) -> jax.Array | None:
        """Return where a straight-through gradient passes; None means everywhere.

        Some slack at the bound keeps the element that sets the range inside, however its
        quotient was rounded.
        """
        ...

    def encode(self, levels: jax.Array) -> jax.Array:
        """Encode levels as codes of ``dtype``."""
        ...

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Decode codes to levels, as floats."""
        ...
