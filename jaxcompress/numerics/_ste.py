# SPDX-License-Identifier: Apache-2.0
"""The straight-through estimator."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def ste(x: jax.Array, value: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    """Return ``value`` in the forward pass, bit for bit, and pass the gradient to ``x``.

    It computes ``value + (x - x)`` with stopped gradients. The usual ``x + (value - x)``
    rounds, which turns the 16 values of a 4-bit grid into a few more. It uses ordinary
    operations, so forward mode and second derivatives work.

    Args:
      x: float array that receives the gradient.
      value: array of the same shape and dtype, the result of the forward pass.
      inside: bool array; the gradient is zero where it is False. None means True
        everywhere.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.value_and_grad(lambda x: ste(x, jnp.round(x)))(0.7)
      (Array(1., dtype=float32, weak_type=True), Array(1., dtype=float32, weak_type=True))
    """
    through = x if inside is None else jnp.where(inside, x, lax.stop_gradient(x))
    return lax.stop_gradient(value) + (through - lax.stop_gradient(through))
