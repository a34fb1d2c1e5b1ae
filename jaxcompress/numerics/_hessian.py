# SPDX-License-Identifier: Apache-2.0
"""Damping and inverting the second moments of a layer's inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

# Accelerators multiply float32 with fewer bits by default.
EXACT = lax.Precision.HIGHEST


def damped(h: jax.Array, damping: float | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Add a share of the mean diagonal to the diagonal, to make the matrix invertible.

    Args:
      h: (features, features), positive semidefinite.
      damping: share to add, relative to the mean diagonal of the live features.

    Returns:
      The matrix as float32, and bool (features,): True for live features. Dead features
      have a zero diagonal (their input was always zero); it becomes the mean.
    """
    h = h.astype(jnp.float32)
    diagonal = jnp.diagonal(h)
    is_live = diagonal > 0
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(is_live), 1)
    mean = jnp.where(mean > 0, mean, 1)
    return h + jnp.diag(jnp.where(is_live, damping * mean, mean)), is_live


@jax.jit
def inverse_hessian(h: jax.Array, damping: float | jax.Array = 0.01) -> jax.Array:
    """Invert a damped Hessian ``X^T X``.

    Args:
      h: float (features, features): ``X^T X``, in any unit.
      damping: share of the mean diagonal over live features to add to the diagonal. With
        0, a singular matrix gives NaN.

    Returns:
      float32 (features, features). A dead feature, whose diagonal is zero, counts as a
      feature of mean magnitude that is uncorrelated with the others.
    """
    h, _ = damped(h, damping)
    factor = jax.scipy.linalg.cho_factor(h, lower=True)
    return jax.scipy.linalg.cho_solve(factor, jnp.eye(len(h)))
