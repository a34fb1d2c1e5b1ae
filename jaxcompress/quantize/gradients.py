# SPDX-License-Identifier: Apache-2.0
"""Gradients: what the backward pass takes rounding for.

A gradient is given as a *surrogate*: a differentiable function of the input and the scale,
whose value does not matter and whose derivatives are used. So forward mode and second
derivatives work through all of them.
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
    """An array and what it was rounded to, for a ``Gradient``.

    Attributes:
      x: the array, float; differentiable.
      steps: float: ``x / scale + zero_point``, before rounding; constant.
      levels: what it was rounded to, likewise; constant.
      scale: float array that broadcasts against ``x``; differentiable where it is learned.
      zero_point: likewise, or None.
      fmt: the format.
    """

    x: jax.Array
    steps: jax.Array
    levels: jax.Array
    scale: jax.Array
    zero_point: jax.Array | None
    fmt: Format


Gradient = Callable[[Rounded], jax.Array]
"""``rounded -> surrogate``, an array of the shape of ``rounded.x``."""


def straight_through(r: Rounded) -> jax.Array:
    """The identity where nothing is clipped; half a step beyond the bound still passes.

    The slack keeps the element that sets the range inside, however its quotient was
    rounded.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432
    """
    inside = r.fmt.inside(r.steps)
    return r.x if inside is None else jnp.where(inside, r.x, lax.stop_gradient(r.x))


def pass_through(r: Rounded) -> jax.Array:
    """The identity everywhere, beyond the bound too."""
    return r.x


def clipped(r: Rounded) -> jax.Array:
    """The identity within the bound, without slack; of a sign, up to its scale.

    With ``unit`` scales that is the rule of binary networks: within plus and minus 1.

    References:
      Hubara et al., 2016, https://arxiv.org/abs/1602.02830
    """
    inside = (r.steps >= r.fmt.low) & (r.steps <= r.fmt.high)
    return jnp.where(inside, r.x, lax.stop_gradient(r.x))


def through_scale(r: Rounded) -> jax.Array:
    """Straight through, and to the scale and the zero point where they are learned.

    Inside, the scale's derivative is the rounding error in steps; where clipped, it is the
    level of the bound; of a sign, the sign. Values are clipped from half a step beyond the
    bound on (a whole one with a zero point), where the papers begin at the bound.

    References:
      Esser et al., 2020, https://arxiv.org/abs/1902.08153; Bhalgat et al., 2020,
      https://arxiv.org/abs/2004.09576
    """
    zero = 0 if r.zero_point is None else r.zero_point
    within = r.x + (r.levels - r.steps) * r.scale
    inside = r.fmt.inside(r.steps)
    if inside is None:  # of a sign, which is the same at every scale
        return r.x + r.levels * r.scale
    # The bound itself moves where bits are learned.
    bound = jnp.where(r.levels > 0, r.fmt.high, r.fmt.low)
    beyond = (r.levels + bound - lax.stop_gradient(bound) - zero) * r.scale
    return jnp.where(inside, within, beyond)


def to_the_bound(r: Rounded) -> jax.Array:
    """Straight through inside; where clipped, to the bound, as in PACT.

    A sign is clipped where it is larger than its scale.

    References:
      Choi et al., 2018, https://arxiv.org/abs/1805.06085
    """
    zero = 0 if r.zero_point is None else lax.stop_gradient(r.zero_point)
    inside = r.fmt.inside(r.steps)
    inside = jnp.abs(r.steps) <= 1 if inside is None else inside
    return jnp.where(inside, r.x, (r.levels - zero) * r.scale)


def soft(sharpness: float = 5.0) -> Gradient:
    """The derivative of a smooth staircase: large at the edges of a step, small between.

    Args:
      sharpness: of the tanh that each step is made of; near 0 it is the identity.

    References:
      Gong et al., 2019, https://arxiv.org/abs/1908.05033
    """
    if isinstance(sharpness, Rounded):
        raise TypeError("gradient=soft was not called: give soft().")
    if not sharpness > 0:
        raise ValueError(f"sharpness={sharpness} is not above 0.")

    def surrogate(r: Rounded) -> jax.Array:
        scale = lax.stop_gradient(r.scale)
        low, high = (r.fmt.round(r.steps, f) for f in (jnp.floor, jnp.ceil))
        gap = jnp.where(high > low, high - low, 1)
        # Constant but for x, whose own change in steps is what is differentiated.
        moved = (r.x - lax.stop_gradient(r.x)) / scale
        middle = (r.steps - low) / gap - 0.5 + moved / gap
        stair = jnp.tanh(sharpness * middle) / (2 * jnp.tanh(sharpness / 2))
        inside = r.fmt.inside(r.steps)
        smooth = jnp.where(high > low, stair * gap, moved) * scale
        return smooth if inside is None else jnp.where(inside, smooth, 0)

    return surrogate


def polynomial(r: Rounded) -> jax.Array:
    """Of a sign: a triangle around zero, as in Bi-Real net and ReActNet.

    References:
      Liu et al., 2018, https://arxiv.org/abs/1808.00278; Liu et al., 2020,
      https://arxiv.org/abs/2003.03488
    """
    scale = lax.stop_gradient(r.scale)
    steps = r.x / scale
    inside = jnp.abs(lax.stop_gradient(steps)) < 1
    curve = jnp.where(r.x < 0, 2 * steps + steps**2, 2 * steps - steps**2)
    return jnp.where(inside, curve * scale, 0)
