# SPDX-License-Identifier: Apache-2.0
"""AdaRound: learned up-or-down rounding that minimizes the layer output error."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._signatures import name_defaults
from ...formats import Format
from ...numerics import EXACT, as_partial
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax
from ._learned_rounding import (
    Training,
    check_training,
    find_neighbors,
    harden,
    initialize,
    learn,
)


@name_defaults
def adaround(
    w: jax.Array,
    h: jax.Array,
    fmt: Format,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = absmax,
    keep: jax.Array | None = None,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    regularization: float = 10.0,
    warm_up: float = 0.2,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Quantize one layer with AdaRound: learn to round each weight up or down.

    Use it when rounding to nearest loses accuracy and the second moments of the layer
    inputs are available; ``adaround_quantization`` applies it to a whole network. It
    minimizes the output error ``trace((v - w)^T h (v - w))``. During training a weight
    may lie between its two neighboring grid values; the regularizer pulls it to one of
    them. Scales are chosen first and then fixed. An output for which rounding to nearest
    has a lower error uses rounding to nearest, so no output gets worse. Each step costs
    ``features^2 * outputs``.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs; any scaling works.
      fmt: an integer format with at least 2 bits.
      scale_shape: (groups, outputs), or any shape that divides the shape of ``w``. None:
        one scale per output.
      scale: function that chooses the scales.
      keep: bool like ``w``. Weights are zero in the result where it is False.
      steps: number of Adam steps.
      learning_rate: learning rate of Adam.
      regularization: penalty on undecided weights. At 1, an output whose weights are all
        undecided costs as much as the error of rounding it to nearest.
      warm_up: fraction of the steps before the penalty sets in.

    Returns:
      Weights like ``w``, on the grid; float32 scales and zero points of ``scale_shape``.
      Zero points are None if the format is symmetric.

    Raises:
      ValueError: if the format is not an integer format of at least 2 bits, or an
        argument is out of range.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, kw, km = jax.random.split(jax.random.key(0), 3)
      >>> x = jax.random.normal(kx, (256, 16)) @ jax.random.normal(km, (16, 16))
      >>> w, fmt = jax.random.normal(kw, (16, 4)), jc.formats.Int(4)
      >>> rounded, scale, _ = adaround(w, x.T @ x, fmt, steps=300)
      >>> nearest = jc.quantize.fake_quant(w, fmt, scale_shape=(1, 4))
      >>> errors = [jnp.sum((x @ (v - w)) ** 2) for v in (rounded, nearest)]
      >>> bool(errors[0] < 0.6 * errors[1])
      True

    References:
      Nagel et al., 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization",
      https://arxiv.org/abs/2004.10568
    """
    if w.ndim != 2 or h.shape != (len(w), len(w)):
        raise ValueError(
            "adaround takes one matrix w of shape (features, outputs) and h of shape "
            f"(features, features), got weights of shape {w.shape} and second moments of "
            f"shape {h.shape}. Use jax.vmap for several matrices."
        )
    training = Training(steps, learning_rate, regularization, warm_up)
    check_training(training)
    tiles = (1, w.shape[1]) if scale_shape is None else tuple(scale_shape)
    return _adaround(
        w, h, keep, as_partial(scale), fmt=fmt, tiles=tiles, training=training
    )


@functools.partial(jax.jit, static_argnames=("fmt", "tiles", "training"))
def _adaround(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array | None,
    scale: Partial,
    *,
    fmt: Format,
    tiles: tuple[int, int],
    training: Training,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    w32, h = w.astype(jnp.float32), h.astype(jnp.float32)
    kept = jnp.ones(w.shape, bool) if keep is None else keep
    kept_weights = jnp.where(kept, w32, 0)
    grid = scale(kept_weights, tiles, fmt)
    neighbors = find_neighbors(w32, fmt, tiles, grid, kept)
    nearest = fake_quant(kept_weights, fmt, scale_shape=tiles, scale=fixed(*grid))

    def multiply_error(v: jax.Array) -> jax.Array:
        return jnp.matmul(h, v - w32, precision=EXACT)

    def output_errors(v: jax.Array) -> jax.Array:
        return jnp.sum((v - w32) * multiply_error(v), axis=0)

    nearest_errors = output_errors(nearest)
    unit = jnp.where(nearest_errors > 0, nearest_errors, 1)

    def error(shares: jax.Array, step: jax.Array) -> jax.Array:
        del step
        v = neighbors.at(shares)
        # Only the gradient of this sum is used, 2 h (v - w). Stopping the gradient in one
        # factor takes one product instead of two.
        product = jax.lax.stop_gradient(multiply_error(v))
        return 2 * jnp.sum((v - w32) * product / unit[None])

    def undecided(costs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(neighbors.differ, costs, 0)) / len(w)

    learned = learn(error, initialize(w32, neighbors), undecided, training)
    rounded = harden(learned, neighbors)
    # If an error is NaN the comparison is False, so NaN stays visible in the result.
    nearest_is_better = nearest_errors < output_errors(rounded)
    new = jnp.where(nearest_is_better[None], nearest, rounded)
    return new.astype(w.dtype), *grid
