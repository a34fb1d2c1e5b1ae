# SPDX-License-Identifier: Apache-2.0
"""Values forward, the identity backward."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def ste(x: jax.Array, value: jax.Array, inside: jax.Array | None = None) -> jax.Array:
    """``value`` forward, bit for bit; the identity of ``x`` backward.

    Written as ``value + (x - x)`` with stopped gradients and not as ``x + (value - x)``,
    whose rounding turns the 16 values of a 4-bit grid into a few more. It is made of
    ordinary operations, so forward mode and second derivatives pass through it.

    Args:
      x: float array, what the gradient goes to.
      value: array of the same shape and dtype, what the forward pass sees.
      inside: bool array; where it is False the gradient is zero. None: everywhere True.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432

    Example:
      >>> import jax, jax.numpy as jnp
      >>> jax.value_and_grad(lambda x: ste(x, jnp.round(x)))(0.7)
      (Array(1., dtype=float32, weak_type=True), Array(1., dtype=float32, weak_type=True))
    """
    through = x if inside is None else jnp.where(inside, x, lax.stop_gradient(x))
    return lax.stop_gradient(value) + (through - lax.stop_gradient(through))
