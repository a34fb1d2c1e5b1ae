# SPDX-License-Identifier: Apache-2.0
"""Gradients of rounding, passed as ``gradient=``: how the backward pass treats it.

Each gradient is a *surrogate*: a differentiable function of the input and the scale. Only
its derivatives are used; its value is ignored. Forward mode and second derivatives work
through all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..formats import Format

__all__ = [
    "Gradient",
    "Rounded",
    "clipped",
    "pass_through",
    "polynomial",
    "soft",
    "straight_through",
    "through_scale",
    "to_the_bound",
]


class Rounded(NamedTuple):
    """Hold an array and its rounded levels: the argument of a ``Gradient``.

    Attributes:
      x: the float array; differentiable.
      steps: float, ``x / scale + zero_point`` before rounding; constant.
      levels: float, ``steps`` after rounding; constant.
      scale: float array that broadcasts against ``x``; differentiable if it is learned.
      zero_point: likewise, or None.
      fmt: the number format.
    """

    x: jax.Array
    steps: jax.Array
    levels: jax.Array
    scale: jax.Array
    zero_point: jax.Array | None
    fmt: Format


Gradient = Callable[[Rounded], jax.Array]
"""Function ``rounded -> surrogate``, an array of the shape of ``rounded.x``."""


def straight_through(r: Rounded) -> jax.Array:
    """Pass the gradient unchanged except where values are clipped: the default.

    Values up to half a step beyond the bound still pass. This slack keeps the element that
    sets the range inside, however its quotient was rounded.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432
    """
    inside = r.fmt.inside(r.steps)
    return r.x if inside is None else jnp.where(inside, r.x, lax.stop_gradient(r.x))


def pass_through(r: Rounded) -> jax.Array:
    """Pass the gradient unchanged everywhere, even where values are clipped."""
    return r.x


def clipped(r: Rounded) -> jax.Array:
    """Pass the gradient within the bound only, without slack: for binary networks.

    For a binary format the bound is the scale. With ``unit`` scales this is the rule of
    binary networks: pass within -1 and 1.

    References:
      Hubara et al., 2016, https://arxiv.org/abs/1602.02830
    """
    inside = (r.steps >= r.fmt.low) & (r.steps <= r.fmt.high)
    return jnp.where(inside, r.x, lax.stop_gradient(r.x))


def through_scale(r: Rounded) -> jax.Array:
    """Pass the gradient to the weights, and to a learned scale and zero point (LSQ).

    For values inside the range, the scale's derivative is the rounding error in steps. For
    clipped values, it is the level of the bound; for a binary format, the sign. Values
    count as clipped from half a step beyond the bound (a whole step with a zero point);
    the papers start at the bound.

    References:
      Esser et al., 2020, https://arxiv.org/abs/1902.08153; Bhalgat et al., 2020,
      https://arxiv.org/abs/2004.09576
    """
    zero = 0 if r.zero_point is None else r.zero_point
    within = r.x + (r.levels - r.steps) * r.scale
    inside = r.fmt.inside(r.steps)
    if inside is None:  # binary: the sign does not depend on the scale
        return r.x + r.levels * r.scale
    # With learned bits the bound itself is differentiable.
    bound = jnp.where(r.levels > 0, r.fmt.high, r.fmt.low)
    beyond = (r.levels + bound - lax.stop_gradient(bound) - zero) * r.scale
    return jnp.where(inside, within, beyond)


def to_the_bound(r: Rounded) -> jax.Array:
    """Pass the gradient inside the range, and that of clipped values to the bound (PACT).

    A binary value is clipped if its magnitude exceeds the scale.

    References:
      Choi et al., 2018, https://arxiv.org/abs/1805.06085
    """
    zero = 0 if r.zero_point is None else lax.stop_gradient(r.zero_point)
    inside = r.fmt.inside(r.steps)
    inside = jnp.abs(r.steps) <= 1 if inside is None else inside
    return jnp.where(inside, r.x, (r.levels - zero) * r.scale)


def soft(sharpness: float = 5.0) -> Gradient:
    """Use the derivative of a smooth staircase, which is large near rounding boundaries.

    Args:
      sharpness: sharpness of the tanh in each step, positive; near 0 the staircase becomes
        the identity.

    Raises:
      ValueError: if ``sharpness`` is not positive.
      TypeError: if ``soft`` itself is passed as ``gradient=``.

    References:
      Gong et al., 2019, https://arxiv.org/abs/1908.05033
    """
    if isinstance(sharpness, Rounded):
        raise TypeError("gradient must be soft(), got soft, which was not called.")
    if not sharpness > 0:
        raise ValueError(f"sharpness must be positive, got {sharpness}.")

    def surrogate(r: Rounded) -> jax.Array:
        scale = lax.stop_gradient(r.scale)
        low, high = (r.fmt.round(r.steps, f) for f in (jnp.floor, jnp.ceil))
        gap = jnp.where(high > low, high - low, 1)
        # Zero in value; its derivative is that of x in steps.
        delta = (r.x - lax.stop_gradient(r.x)) / scale
        middle = (r.steps - low) / gap - 0.5 + delta / gap
        stair = jnp.tanh(sharpness * middle) / (2 * jnp.tanh(sharpness / 2))
        inside = r.fmt.inside(r.steps)
        smooth = jnp.where(high > low, stair * gap, delta) * scale
        return smooth if inside is None else jnp.where(inside, smooth, 0)

    return surrogate


def polynomial(r: Rounded) -> jax.Array:
    """Use a triangular gradient around zero for binary formats, as in Bi-Real Net.

    ReActNet uses it, too.

    References:
      Liu et al., 2018, https://arxiv.org/abs/1808.00278; Liu et al., 2020,
      https://arxiv.org/abs/2003.03488
    """
    scale = lax.stop_gradient(r.scale)
    steps = r.x / scale
    inside = jnp.abs(lax.stop_gradient(steps)) < 1
    curve = jnp.where(r.x < 0, 2 * steps + steps**2, 2 * steps - steps**2)
    return jnp.where(inside, curve * scale, 0)
