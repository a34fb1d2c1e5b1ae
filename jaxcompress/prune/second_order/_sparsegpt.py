# SPDX-License-Identifier: Apache-2.0
"""SparseGPT: prune a layer in one pass over its inputs, compensating as it goes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._arguments import check_counts
from ..._signatures import name_defaults
from ...formats import Int
from ...layerwise import number, sweep
from ...numerics import as_partial, damped, smallest
from ...quantize import fake_quant
from ...quantize.scales import Scale, absmax, fixed

RowGrid = Callable[[jax.Array], jax.Array]
"""``row -> row``: the weights of one feature, float32 (outputs,), rounded to a grid."""


def sparsegpt(
    w: jax.Array,
    h: jax.Array,
    sparsity: float | jax.Array | None,
    *,
    block: int = 128,
    n_of_m: tuple[int, int] | None = None,
    damping: float | jax.Array = 0.01,
    quantize: RowGrid | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Prune a layer feature by feature; the later features compensate for each error.

    When the pass reaches a block of features, the weights to prune are chosen by
    ``w_i^2 / [U_ii]^2`` with the Cholesky factor ``H^-1 = U^T U``. The error of each
    weight is spread over the later features. The cost is one Cholesky factorization and
    ``features^2 * outputs`` products. Unlike exact OBS, earlier features never adjust.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs.
      sparsity: fraction of the weights to prune, traced or not; exactly that fraction,
        rounded, of the features up to the end of every block. At least one weight is
        kept, unless it is 1. It is ignored, and may be
        None, if ``n_of_m`` is set.
      block: features whose masks are chosen together; any number.
      n_of_m: ``(n, m)``: keep n of every m consecutive features of each output.
      damping: see ``inverse_hessian``.
      quantize: rounds the kept weights to a fixed grid (``row_grid``) in the same pass,
        which compensates for the rounding error too. With sparsity 0 this is GPTQ.

    Returns:
      Weights like ``w``, with exact zeros, and the mask of kept weights, bool
      (features, outputs).

    Raises:
      ValueError: if m does not divide the features, or not ``0 < n < m``.

    References:
      Frantar and Alistarh, 2023, https://arxiv.org/abs/2301.00774. The paper zeroes
      all weights of dead features; here they are pruned first, up to the sparsity.

    Example:
      >>> import jax
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> x, w = jax.random.normal(kx, (256, 32)), jax.random.normal(kw, (32, 8))
      >>> pruned, keep = sparsegpt(w, x.T @ x, 0.75)
      >>> int((pruned == 0).sum()), int(keep.sum())
      (192, 64)
    """
    check_counts(block=block)
    features = w.shape[0]
    if n_of_m is not None:
        n, m = n_of_m
        if not 0 < n < m:
            raise ValueError(f"n_of_m must be (n, m) with 0 < n < m, got {n_of_m}.")
        if features % m:
            raise ValueError(f"m must divide the {features} features, got m={m}.")
        block = -(-block // m) * m
        sparsity = 1 - n / m
    if sparsity is None:
        raise ValueError("sparsity=None: give a fraction, or a pattern with n_of_m=.")
    if quantize is not None:
        quantize = as_partial(quantize)
    return _sparsegpt(
        w, h, jnp.asarray(sparsity, jnp.float32), damping, quantize,
        block=min(block, features), n_of_m=n_of_m,
    )  # fmt: skip


@name_defaults
def row_grid(fmt: Int, scale: Scale = absmax) -> Callable[[jax.Array], RowGrid]:
    """Grids for joint quantization, one for each output, fixed by the weights at hand.

    Args:
      fmt: which codes there are.
      scale: how far apart they lie.

    Returns:
      A function of the weights (features, outputs) that gives one for ``quantize=``. The
      values are on the grid of ``quantize.fake_quant(w, fmt, scale_shape=(1, outputs))``.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> x, w = jax.random.normal(kx, (256, 32)), jax.random.normal(kw, (32, 8))
      >>> grid = row_grid(jc.formats.Int(2))(w)  # ternary
      >>> pruned, _ = sparsegpt(w, x.T @ x, 0.5, quantize=grid)
      >>> max(len(jnp.unique(pruned[:, i])) for i in range(8))
      3
    """

    def of_weights(w: jax.Array) -> RowGrid:
        wide = w.astype(jnp.float32)
        return Partial(_round_row(fmt), *scale(wide, (1, w.shape[1]), fmt))

    return of_weights


@functools.cache
def _round_row(fmt: Int) -> Callable[..., jax.Array]:
    """A function of scales, a zero point and a row; the same object for equal formats."""

    def round_row(
        scale: jax.Array, zero_point: jax.Array | None, row: jax.Array
    ) -> jax.Array:
        shape, grid = (1, len(row)), fixed(scale, zero_point)
        return fake_quant(row[None], fmt, scale_shape=shape, scale=grid)[0]

    return round_row


@functools.partial(jax.jit, static_argnames=("block", "n_of_m"))
def _sparsegpt(
    w: jax.Array,
    h: jax.Array,
    sparsity: jax.Array,
    damping: float | jax.Array,
    quantize: RowGrid | None,
    *,
    block: int,
    n_of_m: tuple[int, int] | None,
) -> tuple[jax.Array, jax.Array]:
    features, outputs = w.shape
    size = n_of_m[1] if n_of_m else block
    groups = number(features, size, block)
    # Features that only fill the last block are never pruned.
    there = jnp.arange(groups * size) < features
    live = jnp.pad(damped(h, damping)[1], (0, groups * size - features))
    ends = jnp.minimum(jnp.arange(groups + 1) * size, features) * outputs
    # One weight is left, unless all are to go.
    most = jnp.where(sparsity >= 1, features * outputs, features * outputs - 1)
    counts = jnp.diff(jnp.minimum(jnp.round(sparsity * ends).astype(jnp.int32), most))

    def choose(rows: jax.Array, diagonal: jax.Array, given: Any) -> jax.Array:
        """Which weights of a group to prune, bool (size, outputs)."""
        count, known, alive = given
        scores = jnp.where(alive[:, None], (rows / diagonal[:, None]) ** 2, 0)
        scores = jnp.where(known[:, None], scores, jnp.inf)
        if n_of_m is None:
            return smallest(scores, count)
        ranks = jnp.argsort(jnp.argsort(scores, axis=0), axis=0)  # of m, not of all
        return (ranks < size - n_of_m[0]) & known[:, None]

    def settle(drop: jax.Array, k: jax.Array, row: jax.Array) -> jax.Array:
        return jnp.where(drop[k], 0, row if quantize is None else quantize(row))

    given = counts, there.reshape(groups, size), live.reshape(groups, size)
    new, drop = sweep(w, h, damping, given, choose, settle, size=size, block=block)
    return new.astype(w.dtype), ~drop.reshape(-1, outputs)[:features]
