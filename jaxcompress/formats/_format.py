# SPDX-License-Identifier: Apache-2.0
"""What every format can do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

ToInteger = Callable[[jax.Array], jax.Array]
"""A way to round: float array to whole numbers, each one of the two beside it."""

nearest: ToInteger = jnp.round
"""The nearest whole number, ties to even: the default of every format."""


class Format(Protocol):
    """A finite set of levels, in units of a scale, and the codes they are stored as.

    Laws:

    1. ``decode(encode(levels)) == levels`` for whatever ``round`` gives.
    2. ``round`` changes no level: it is idempotent.
    3. Zero is a level, so that pruned weights stay zero (where there is a zero point,
       it is the zero point).
    4. ``round`` is differentiable through ``to_integer`` and nothing else.
    """

    @property
    def bits(self) -> int | jax.Array:
        """Nominal bits a code; an array where they are traced."""
        ...

    @property
    def symmetric(self) -> bool:
        """Whether values have no zero point."""
        ...

    @property
    def scaled(self) -> bool:
        """Whether values are divided by a scale; a plain cast is not."""
        ...

    @property
    def binary(self) -> bool:
        """Whether a code is a sign."""
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
        """One of the two levels beside every value, as floats.

        Args:
          steps: float array, values in units of the scale.
          to_integer: which of the two: the position of a value between its neighbors,
            plus a whole number, to a whole number.
        """
        ...

    def inside(self, steps: jax.Array) -> jax.Array | None:
        """Where a straight-through gradient passes; None: everywhere.

        With slack at the bound, so that the element that sets the range is inside,
        however its quotient was rounded.
        """
        ...

    def encode(self, levels: jax.Array) -> jax.Array:
        """Codes of levels, in ``dtype``."""
        ...

    def decode(self, codes: jax.Array, dtype: np.dtype | jnp.dtype) -> jax.Array:
        """Levels of codes, as floats."""
        ...
