# SPDX-License-Identifier: Apache-2.0
"""Whether each weight is rounded up or down, found by gradient descent on some error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..._compressor import PyTree
from ...formats import Format, Int
from ...numerics import expand_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed

# The sigmoid is stretched to (-0.1, 1.1) and clipped, so that both ends are reached.
_LOW, _HIGH = -0.1, 1.1
_FROM, _TO = 20.0, 2.0  # powers of the regularizer


class Neighbors(NamedTuple):
    """The two values of a grid beside each weight; equal where the grid ends."""

    down: jax.Array  # float32, like the weights
    up: jax.Array  # float32, likewise

    def at(self, share: jax.Array) -> jax.Array:
        """The value that far from the lower to the upper one."""
        return self.down + share * (self.up - self.down)

    @property
    def differ(self) -> jax.Array:
        """Where there is a choice."""
        return self.up > self.down


def neighbors(
    w: jax.Array, fmt: Format, shape: Sequence[int], grid: Any, keep: jax.Array
) -> Neighbors:
    """The values between which rounding chooses; zeros where ``keep`` is False.

    Args:
      w: float32 weights.
      fmt: integers of two bits or more.
      shape: of the scales.
      grid: scale and zero point.
      keep: bool, like the weights.

    Raises:
      ValueError: for other formats.
    """
    if not isinstance(fmt, Int) or fmt.binary:
        raise ValueError(
            f"{fmt} has no even steps to round up or down by. Learned rounding needs "
            "Int(bits) of two bits or more; GPTQ takes every format."
        )
    step = expand_tiles(grid[0], w.shape)
    floor = jnp.floor(w / step)

    def on_grid(steps: jax.Array) -> jax.Array:
        near = fake_quant(steps * step, fmt, scale_shape=shape, scale=fixed(*grid))
        return jnp.where(keep, near, 0)

    return Neighbors(on_grid(floor), on_grid(floor + 1))


def share(v: jax.Array) -> jax.Array:
    """How far up a weight is, in [0, 1]: the rectified sigmoid of what is learned."""
    return jnp.clip(jax.nn.sigmoid(v) * (_HIGH - _LOW) + _LOW, 0, 1)


def unrounded(w: jax.Array, beside: Neighbors) -> jax.Array:
    """What to start from: the shares that leave the weights as they are."""
    gap = jnp.where(beside.differ, beside.up - beside.down, 1)
    where = jnp.clip((w - beside.down) / gap, 0, 1)
    return -jnp.log((_HIGH - _LOW) / (where - _LOW) - 1)


def decided(v: jax.Array, beside: Neighbors) -> jax.Array:
    """The weights, on the grid."""
    return jnp.where(v >= 0, beside.up, beside.down)


class Training(NamedTuple):
    """How rounding is learned."""

    steps: int
    learning_rate: float  # of Adam, for numbers whose ends are near -2.4 and 2.4
    regularization: float  # of undecided shares, in units of the error of rounding
    warm_up: float  # share of the steps before they cost anything


def learn(
    error: Callable[[PyTree, jax.Array], jax.Array],
    start: PyTree,
    undecided: Callable[[PyTree], jax.Array],
    how: Training,
) -> PyTree:
    """Minimize an error over shares that are drawn to 0 and 1 more and more.

    Args:
      error: ``(shares, step) -> error``, in units of that of rounding to nearest.
      start: a tree of float arrays, see ``unrounded``.
      undecided: ``costs -> cost``: how to sum a tree of costs in [0, 1], one a weight.
      how: steps, rates.

    Returns:
      A tree like ``start``.
    """
    adam = optax.adam(how.learning_rate)
    first = how.warm_up * how.steps

    def loss(v: PyTree, step: jax.Array) -> jax.Array:
        shares = jax.tree.map(share, v)
        progress = jnp.clip((step - first) / max(how.steps - first, 1), 0, 1)
        power = _TO + (_FROM - _TO) * (1 + jnp.cos(jnp.pi * progress)) / 2
        costs = jax.tree.map(lambda s: 1 - jnp.abs(2 * s - 1) ** power, shares)
        weight = jnp.where(step < first, 0, how.regularization)
        return error(shares, step) + weight * undecided(costs)

    def update(carry: tuple[PyTree, Any], step: jax.Array) -> tuple[Any, None]:
        v, state = carry
        updates, state = adam.update(jax.grad(loss)(v, step), state)
        return (optax.apply_updates(v, updates), state), None

    (v, _), _ = lax.scan(update, (start, adam.init(start)), jnp.arange(how.steps))
    return v


def check(how: Training) -> None:
    """Refuse numbers that cannot be."""
    if how.steps < 1:
        raise ValueError(f"steps={how.steps}: rounding is learned in 1 step or more.")
    if not 0 <= how.warm_up < 1:
        raise ValueError(f"warm_up={how.warm_up}: a share of the steps, in [0, 1).")
