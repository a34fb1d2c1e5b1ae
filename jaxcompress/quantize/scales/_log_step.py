# SPDX-License-Identifier: Apache-2.0
"""A step size whose logarithm is learned."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from ..._origin import make_origin
from ...formats import Format
from ...numerics import reduce_tiles
from ..gradients import through_scale
from ._learned import (
    LearnedScaleState,
    learned_scale,
    nan_if_unset,
    set_once,
    unset_state,
)
from ._stateful import Chosen, Shape, StatefulScale


def log_step(start: float = 1.0) -> StatefulScale:
    """Learn the logarithm of the step size: an update changes a step by a factor.

    Unlike ``lsq``, whose step moves by fixed amounts and clips at a bound, it serves steps
    that change by orders of magnitude, as they do where the size of the file is part of the
    loss (``rate.entropy_constrained``).

    Args:
      start: the first step, in standard deviations of the first array.

    Raises:
      ValueError: if ``start`` is not positive and finite.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[-3.0, 3.0], [-1.0, 1.0]])}
      >>> c = jc.weight_quantization(
      ...     bits=8, scale=jc.quantize.scales.log_step(0.5), granularity=jc.PerTensor()
      ... )
      >>> jc.compress(c, params)["kernel"].codes.tolist()
      [[-3, 3], [-1, 1]]

    References:
      Oktay et al., 2020, https://arxiv.org/abs/1906.06624
    """
    if not (start > 0 and math.isfinite(start)):
        raise ValueError(f"start must be a positive number, got {start}.")

    def init(shape: Shape, fmt: Format) -> LearnedScaleState:
        return unset_state(shape, make_origin("log_step", fmt))

    def observe(
        state: LearnedScaleState, x: jax.Array, fmt: Format
    ) -> LearnedScaleState:
        del fmt
        shape = state.scale.value.shape

        def first() -> Chosen:
            wide = lax.stop_gradient(x).astype(jnp.float32)
            deviation = reduce_tiles(jnp.std, wide, shape or (1,) * x.ndim)
            # Equal values, such as biases at zero, have no spread.
            largest = reduce_tiles(jnp.max, jnp.abs(wide), shape or (1,) * x.ndim)
            spread = jnp.where(deviation > 1e-3 * largest, deviation, largest)
            spread = jnp.where(spread > jnp.finfo(jnp.float32).tiny, spread, 1e-2)
            return jnp.log(start * spread), None

        return set_once(state, first)

    def read(state: LearnedScaleState, x: jax.Array, fmt: Format) -> Chosen:
        del x
        step = jnp.exp(jnp.clip(state.scale.value, -60.0, 60.0))
        scale = nan_if_unset(state, step)
        return scale, None if fmt.symmetric else jnp.full_like(scale, fmt.low)

    return learned_scale("log_step", init, observe, read, through_scale)
