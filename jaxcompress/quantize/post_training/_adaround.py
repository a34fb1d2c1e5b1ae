# SPDX-License-Identifier: Apache-2.0
"""AdaRound: learning to round a layer up or down, by its outputs."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ...formats import Format
from ...numerics import EXACT
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax
from ._learned_rounding import Training, check, decided, learn, neighbors, unrounded


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
    """Round each weight up or down, whichever the outputs of the layer miss less.

    Minimizes ``trace((v - w)^T h (v - w))`` over weights between the two values of the
    grid beside each, that are drawn to either of them in the course of it. The scales are
    chosen before and held. An output that rounding to nearest does better for is rounded
    so: no output gets worse. Each step costs ``features^2 * outputs``.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs, in any unit.
      fmt: integers, of two bits or more.
      scale_shape: (groups, outputs), or any that divides the shape of ``w``; None: one
        scale for each output.
      scale: how to choose them.
      keep: bool like ``w``; where it is False, weights are zero in the result.
      steps: of Adam.
      learning_rate: of Adam.
      regularization: what an undecided weight costs; the error of rounding to nearest
        costs as much as all weights of an output at 1, undecided.
      warm_up: share of the steps before that.

    Returns:
      Weights like ``w``, on the grid; float32 scales and zero points (None where the
      format is symmetric) of ``scale_shape``.

    Raises:
      ValueError: for other formats, or numbers out of their range.

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
            f"weights of shape {w.shape} and second moments of shape {h.shape}: adaround "
            "takes one matrix (features, outputs) and (features, features); jax.vmap maps "
            "it."
        )
    how = Training(steps, learning_rate, regularization, warm_up)
    check(how)
    tiles = (1, w.shape[1]) if scale_shape is None else tuple(scale_shape)
    return _adaround(w, h, keep, Partial(scale), fmt=fmt, tiles=tiles, how=how)


@functools.partial(jax.jit, static_argnames=("fmt", "tiles", "how"))
def _adaround(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array | None,
    scale: Partial,
    *,
    fmt: Format,
    tiles: tuple[int, int],
    how: Training,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    wide, h = w.astype(jnp.float32), h.astype(jnp.float32)
    kept = jnp.ones(w.shape, bool) if keep is None else keep
    some = jnp.where(kept, wide, 0)
    grid = scale(some, tiles, fmt)
    beside = neighbors(wide, fmt, tiles, grid, kept)
    nearest = fake_quant(some, fmt, scale_shape=tiles, scale=fixed(*grid))

    def push(v: jax.Array) -> jax.Array:
        return jnp.matmul(h, v - wide, precision=EXACT)

    def errors(v: jax.Array) -> jax.Array:
        return jnp.sum((v - wide) * push(v), axis=0)

    start = errors(nearest)
    unit = jnp.where(start > 0, start, 1)

    def error(shares: jax.Array, step: jax.Array) -> jax.Array:
        del step
        v = beside.at(shares)
        # Of this sum only the gradient is looked at, 2 h (v - w): one product, not two.
        return 2 * jnp.sum((v - wide) * jax.lax.stop_gradient(push(v)) / unit[None])

    def undecided(costs: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(beside.differ, costs, 0)) / len(w)

    learned = learn(error, unrounded(wide, beside), undecided, how)
    found = decided(learned, beside)
    # `not <`: what is not a number stays in sight.
    new = jnp.where((start < errors(found))[None], nearest, found)
    return new.astype(w.dtype), *grid
