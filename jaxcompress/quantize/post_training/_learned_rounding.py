# SPDX-License-Identifier: Apache-2.0
"""Learn whether to round each weight up or down, by gradient descent on an error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ..._arguments import check_whole
from ..._compressor import PyTree
from ...formats import Format, Int
from ...numerics import divide_by_tiles, expand_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed

# The sigmoid is stretched to (-0.1, 1.1) and clipped, so that it reaches 0 and 1.
_LOW, _HIGH = -0.1, 1.1
_START_POWER, _END_POWER = 20.0, 2.0  # of the regularizer


class Neighbors(NamedTuple):
    """The grid values below and above each weight; equal at the ends of the grid."""

    down: jax.Array  # float32, shaped like the weights
    up: jax.Array  # float32, shaped like the weights

    def at(self, share: jax.Array) -> jax.Array:
        """Interpolate: the lower value at share 0, the upper value at share 1."""
        return self.down + share * (self.up - self.down)

    @property
    def differ(self) -> jax.Array:
        """True where the two values differ, so rounding has a choice."""
        return self.up > self.down


def find_neighbors(
    w: jax.Array, fmt: Format, shape: Sequence[int], grid: Any, keep: jax.Array
) -> Neighbors:
    """Find the two grid values around each weight; zeros where ``keep`` is False.

    Args:
      w: float32 weights.
      fmt: an integer format with at least 2 bits.
      shape: shape of the scales.
      grid: scale and zero point.
      keep: bool, shaped like the weights.

    Raises:
      ValueError: if the format is not an integer format of at least 2 bits.
    """
    if not isinstance(fmt, Int) or fmt.binary:
        raise ValueError(
            f"fmt must be Int(bits) with bits >= 2 for learned rounding, got {fmt}. Use "
            "gptq, which takes every format."
        )
    step = expand_tiles(grid[0], w.shape)
    floor = jnp.floor(divide_by_tiles(w, grid[0]))

    def on_grid(steps: jax.Array) -> jax.Array:
        near = fake_quant(steps * step, fmt, scale_shape=shape, scale=fixed(*grid))
        return jnp.where(keep, near, 0)

    return Neighbors(on_grid(floor), on_grid(floor + 1))


def to_share(v: jax.Array) -> jax.Array:
    """Map the learned variable to [0, 1], from down to up, by the rectified sigmoid."""
    return jnp.clip(jax.nn.sigmoid(v) * (_HIGH - _LOW) + _LOW, 0, 1)


def initialize(w: jax.Array, neighbors: Neighbors) -> jax.Array:
    """Return the learned variables at which each weight has its original value."""
    gap = jnp.where(neighbors.differ, neighbors.up - neighbors.down, 1)
    share = jnp.clip((w - neighbors.down) / gap, 0, 1)
    return -jnp.log((_HIGH - _LOW) / (share - _LOW) - 1)


def harden(v: jax.Array, neighbors: Neighbors) -> jax.Array:
    """Round each weight to the neighbor that its learned variable favors."""
    return jnp.where(v >= 0, neighbors.up, neighbors.down)


class Training(NamedTuple):
    """Hyperparameters of learned rounding."""

    steps: int  # of Adam
    learning_rate: float  # of Adam, for variables in about [-2.4, 2.4]
    regularization: float  # penalty on undecided shares / error of rounding to nearest
    warm_up: float  # fraction of the steps before the penalty sets in


def learn(
    error: Callable[[PyTree, jax.Array], jax.Array],
    start: PyTree,
    undecided: Callable[[PyTree], jax.Array],
    training: Training,
) -> PyTree:
    """Minimize an error over shares that a growing penalty pulls to 0 or 1.

    Args:
      error: ``(shares, step) -> error``, relative to the error of rounding to nearest.
      start: tree of float arrays, see ``initialize``.
      undecided: ``costs -> cost``: reduces a tree of costs in [0, 1], one per weight, to
        a scalar.
      training: hyperparameters.

    Returns:
      A tree like ``start``.
    """
    adam = optax.adam(training.learning_rate)
    warm_up_steps = training.warm_up * training.steps

    def loss(v: PyTree, step: jax.Array) -> jax.Array:
        shares = jax.tree.map(to_share, v)
        progress = (step - warm_up_steps) / max(training.steps - warm_up_steps, 1)
        progress = jnp.clip(progress, 0, 1)
        cosine = (1 + jnp.cos(jnp.pi * progress)) / 2
        power = _END_POWER + (_START_POWER - _END_POWER) * cosine
        costs = jax.tree.map(lambda s: 1 - jnp.abs(2 * s - 1) ** power, shares)
        weight = jnp.where(step < warm_up_steps, 0, training.regularization)
        return error(shares, step) + weight * undecided(costs)

    def update(carry: tuple[PyTree, Any], step: jax.Array) -> tuple[Any, None]:
        v, state = carry
        updates, state = adam.update(jax.grad(loss)(v, step), state)
        return (optax.apply_updates(v, updates), state), None

    steps = jnp.arange(training.steps)
    (v, _), _ = lax.scan(update, (start, adam.init(start)), steps)
    return v


def check_training(training: Training) -> None:
    """Raise ValueError if a hyperparameter is out of range."""
    check_whole(steps=training.steps)
    if training.steps < 1:
        raise ValueError(f"steps must be at least 1, got steps={training.steps}.")
    if not 0 <= training.warm_up < 1:
        raise ValueError(
            "warm_up must be a fraction of the steps in [0, 1), got "
            f"warm_up={training.warm_up}."
        )
