# SPDX-License-Identifier: Apache-2.0
"""Warn about ranges so wide that everything typical rounds to zero."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from ..._warn import warn
from ...leaves import scales_as_floats
from ...quantize.scales._following import largest_level
from ._quantizer import ActivationQuantizer

# Sentinels such as -1e9 are large. A 1 next to small probabilities is not a sentinel.
_LARGE, _TIMES = 1e4, 1e6


class RangeWarning(UserWarning):
    """The range of an activation is unknown, or far wider than its typical values."""


def check_range(
    name: str, quantizer: ActivationQuantizer, state: Any, x: jax.Array
) -> None:
    """Warn, by name, if a range dwarfs what it is for; under ``jit`` nothing is known."""
    leaves = jax.tree.leaves((state, x))
    if any(isinstance(leaf, Tracer) for leaf in leaves) or not x.size:
        return
    fmt = quantizer.fmt
    scale = state if quantizer.rounding is None else state.scale
    steps = scales_as_floats(quantizer.kept.read(scale, x, fmt)[0], jnp.float32)
    reach = jnp.max(steps) * largest_level(fmt)
    # Under jit, what is computed from a constant is traced, too.
    if isinstance(reach, Tracer):
        return
    width = float(reach)
    if math.isnan(width):
        warn(
            f"the range of {name!r} is NaN, and so is what is rounded by it: no data was "
            "observed there, or some that was not finite. Calibrate on finite batches.",
            RangeWarning,
        )
    if not width > _LARGE:
        return
    sizes = jnp.abs(x.astype(jnp.float32))
    ordinary = jnp.where((sizes > 0) & (sizes < width / 100), sizes, jnp.nan)
    typical = float(jnp.nanmedian(ordinary))
    if width > _TIMES * typical:
        warn(
            f"the range of {name!r} reaches {width:.1e}, but its values are typically "
            f"around {typical:.1e}, so they round to zero. If the large ones stand for "
            "minus infinity, as in a mask, leave the point out with the policy "
            f"{{{name!r}: None, '*': operands_only()}}.",
            RangeWarning,
        )
