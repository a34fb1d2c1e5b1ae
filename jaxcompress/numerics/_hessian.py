# SPDX-License-Identifier: Apache-2.0
"""The second moments of a layer's inputs, made invertible, and inverted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# Other devices multiply float32 in fewer bits unless told not to.
EXACT = lax.Precision.HIGHEST


def damped(h: jax.Array, damping: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Add a share of its mean to the diagonal, so that the matrix can be inverted.

    Args:
      h: (features, features), positive semidefinite.
      damping: relative to the mean diagonal of the live features.

    Returns:
      The matrix as float32, and bool (features,): which features are live. The others
      have zero on the diagonal (they were zero in every row); they get the mean.
    """
    h = h.astype(jnp.float32)
    diagonal = jnp.diagonal(h)
    live = diagonal > 0
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(live), 1)
    mean = jnp.where(mean > 0, mean, 1)
    return h + jnp.diag(jnp.where(live, damping * mean, mean)), live


@jax.jit
def inverse_hessian(h: jax.Array, damping: float | jax.Array = 0.01) -> jax.Array:
    """The inverse of ``h``, damped.

    Args:
      h: float (features, features): ``X^T X``, in any unit.
      damping: what to add to the diagonal, as a share of its mean over live features.
        With 0 a singular matrix gives NaN.

    Returns:
      float32 (features, features). A dead feature, whose diagonal is zero, is taken for
      one of mean size that goes with no other.
    """
    h, _ = damped(h, damping)
    factor = jax.scipy.linalg.cho_factor(h, lower=True)
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(h)))
