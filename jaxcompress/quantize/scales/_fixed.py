# SPDX-License-Identifier: Apache-2.0
"""Scales that are known."""

from __future__ import annotations

from typing import Any

import jax
from jax.tree_util import Partial


def fixed(scale: jax.Array, zero_point: jax.Array | None) -> Partial:
    """A ``Scale`` that gives what it was made of, whatever the weights.

    It is a pytree, so that it can be an argument of a jitted function.

    Args:
      scale: positive float array.
      zero_point: float array of its shape, integer valued; None of symmetric formats.
    """
    return Partial(_give, scale, zero_point)


def _give(scale: jax.Array, zero_point: jax.Array | None, *_: Any) -> Any:
    return scale, zero_point
