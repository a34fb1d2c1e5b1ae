# SPDX-License-Identifier: Apache-2.0
"""Damping and inverting the second moments of a layer's inputs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._eager import one_program

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


# With this many rows a feature, what shrinking gains is below what the data say.
_ENOUGH = 4


@one_program()
def shrunk(h: jax.Array, rows: jax.Array) -> jax.Array:
    """Shrink ``X^T X`` as far as so few rows support neither correlations nor variances.

    With fewer rows than features most correlations are chance, and a solver that
    compensates along them does harm on other inputs. Correlations shrink toward zero and
    variances toward their mean, each by its error (that of normal inputs) as a share of
    its square. Dead features, whose diagonal is zero, stay dead.

    Args:
      h: float (features, features): ``X^T X``, in any unit.
      rows: number of rows of ``X``, [].

    Returns:
      float32 (features, features); exactly ``h`` if there are four rows a feature or
      more.

    References:
      Ledoit and Wolf, 2004, "A well-conditioned estimator for large-dimensional
      covariance matrices"; Schaefer and Strimmer, 2005: correlations and variances apart
    """
    h = h.astype(jnp.float32)
    scale = jnp.max(jnp.diagonal(h), initial=0)
    unit = h / jnp.where(scale > 0, scale, 1)  # squares must not overflow
    diagonal = jnp.diagonal(unit)
    squares = jnp.sum(diagonal * diagonal)
    rows = jnp.asarray(rows, jnp.float32)
    is_few = rows < _ENOUGH * len(h)

    def share(error: jax.Array, signal: jax.Array) -> jax.Array:
        least = jnp.finfo(jnp.float32).tiny
        return jnp.where(is_few, jnp.clip(error / jnp.maximum(signal, least), 0, 1), 0)

    off = jnp.sum(unit * unit) - squares
    chance = share((off + jnp.sum(diagonal) ** 2 - squares) / (rows + 1), off)
    live = diagonal > 0
    mean = jnp.sum(diagonal) / jnp.maximum(jnp.sum(live), 1)
    apart = jnp.sum(jnp.where(live, (diagonal - mean) ** 2, 0))
    alike = share(2 * squares / (rows + 2), apart)
    ratio = jnp.where(
        live, (1 - alike) + alike * mean / jnp.where(live, diagonal, 1), 1
    )
    root = jnp.sqrt(ratio)
    correlated = (1 - chance) * h + jnp.diag(chance * jnp.diagonal(h))
    return correlated * root[:, None] * root[None, :]


@jax.jit
def output_error(v: jax.Array, w: jax.Array, h: jax.Array) -> jax.Array:
    """Sum the squared change of a layer's outputs: ``trace((v - w)^T h (v - w))``.

    Args:
      v: float (features, outputs), the new weights.
      w: float (features, outputs), the old ones.
      h: float (features, features): ``X^T X`` of the inputs.
    """
    change = v.astype(jnp.float32) - w.astype(jnp.float32)
    return jnp.sum(change * jnp.matmul(h.astype(jnp.float32), change, precision=EXACT))


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
