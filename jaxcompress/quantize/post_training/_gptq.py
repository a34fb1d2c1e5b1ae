# SPDX-License-Identifier: Apache-2.0
"""GPTQ: round a layer feature by feature; later features compensate for the error."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ..._arguments import check_counts
from ..._signatures import name_defaults
from ...formats import Format
from ...layerwise import number, sweep
from ...numerics import as_partial, expand_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale
from ..scales._stateful import suited


@name_defaults
def gptq(
    w: jax.Array,
    h: jax.Array,
    fmt: Format,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = suited,
    keep: jax.Array | None = None,
    act_order: bool = False,
    static_groups: bool = False,
    damping: float | jax.Array = 0.01,
    block: int = 128,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Quantize one layer with GPTQ: round feature by feature and compensate the error.

    Use it when rounding to nearest loses accuracy and the second moments of the layer
    inputs are available; ``gptq_quantization`` applies it to a whole network. Features
    are rounded in order, and later features absorb the error of each so that the outputs
    change little. Costs a Cholesky factorization and ``features^2 * outputs`` products.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs; any scaling works.
      fmt: the number format.
      scale_shape: (groups, outputs), or any shape that divides the shape of ``w``. None:
        one scale per output.
      scale: function that chooses the scales. With several groups, it runs when the pass
        reaches a group, on the weights as updated by then.
      keep: bool like ``w``. Where it is False the result is zero, the other weights
        compensate for the removed one, and scales ignore it. None: keep all.
      act_order: process features by decreasing diagonal of ``h`` instead of in order, so
        that the most important ones are rounded while many others can compensate. All
        scales are then chosen up front, since a group is no longer contiguous.
      static_groups: choose all scales up front, from the original weights.
      damping: added to the diagonal of ``h``, as a fraction of its mean.
      block: number of features per matrix product that updates the later features. It is
        rounded to a multiple of the group size if scales are chosen during the pass.

    Returns:
      Weights like ``w``, on the grid; float32 scales and zero points of ``scale_shape``.
      Zero points are None if the format is symmetric. Passing these to ``fake_quant``
      reproduces the weights, and to ``to_qarray`` gives the codes.

    Raises:
      ValueError: if the shapes do not match.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, kw, km = jax.random.split(jax.random.key(0), 3)
      >>> x = jax.random.normal(kx, (256, 32)) @ jax.random.normal(km, (32, 32))
      >>> w, fmt = jax.random.normal(kw, (32, 8)), jc.formats.Int(4)
      >>> rounded, scale, _ = gptq(w, x.T @ x, fmt)
      >>> nearest = jc.quantize.fake_quant(w, fmt, scale_shape=(1, 8))
      >>> errors = [jnp.sum((x @ (v - w)) ** 2) for v in (rounded, nearest)]
      >>> bool(errors[0] < 0.5 * errors[1])
      True

    References:
      Frantar et al., 2022, "GPTQ: Accurate Post-Training Quantization for Generative
      Pre-trained Transformers", https://arxiv.org/abs/2210.17323. ``act_order`` follows
      the authors' code. Dead features, which are zero in every input row, are rounded to
      nearest here; the authors set them to zero.
    """
    check_counts(block=block)
    if w.ndim != 2 or h.shape != (len(w), len(w)):
        raise ValueError(
            "gptq takes one matrix w of shape (features, outputs) and h of shape "
            f"(features, features), got weights of shape {w.shape} and second moments of "
            f"shape {h.shape}. Use jax.vmap for several matrices."
        )
    tiles = (1, w.shape[1]) if scale_shape is None else tuple(scale_shape)
    if len(tiles) != 2 or any(n % t for n, t in zip(w.shape, tiles, strict=True)):
        raise ValueError(
            "scale_shape must divide the shape of the weights, got "
            f"scale_shape={tiles} for weights of shape {w.shape}."
        )
    return _gptq(
        w, h, keep, damping, as_partial(scale), fmt=fmt, tiles=tiles, block=block,
        act_order=act_order, static=static_groups or act_order or tiles[0] == 1,
    )  # fmt: skip


@functools.partial(
    jax.jit, static_argnames=("fmt", "tiles", "act_order", "static", "block")
)
def _gptq(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array | None,
    damping: float | jax.Array,
    scale: Partial,
    *,
    fmt: Format,
    tiles: tuple[int, int],
    act_order: bool,
    static: bool,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    w32 = w.astype(jnp.float32)
    kept = jnp.ones(w.shape, bool) if keep is None else keep
    if static:
        grid = scale(jnp.where(kept, w32, 0), tiles, fmt)
        # One row per feature, since the order of features may change.
        grid_rows = jax.tree.map(lambda x: expand_tiles(x, (len(w), tiles[1])), grid)
    else:
        grid, grid_rows = None, None

    def settle(decision: Any, k: jax.Array, row: jax.Array) -> jax.Array:
        (scales, zero_points), group_kept = decision
        shape, grid = (1, tiles[1]), fixed(scales, zero_points)
        rounded = fake_quant(row[None], fmt, scale_shape=shape, scale=grid)
        return jnp.where(group_kept[k], rounded[0], 0)

    if grid is not None:
        new = _sweep_static(w32, h, kept, grid_rows, damping, settle, act_order, block)
        return new.astype(w.dtype), *grid

    def begin(rows: jax.Array, diagonal: jax.Array, kept: jax.Array) -> Any:
        return scale(jnp.where(kept, rows, 0), (1, tiles[1]), fmt), kept

    size = len(w) // tiles[0]
    block = max(block // size, 1) * size
    kept_groups = _split_groups(kept, size, block)
    new, (grid, _) = sweep(
        w32, h, damping, kept_groups, begin, settle, size=size, block=block
    )
    scales, zero_points = jax.tree.map(lambda x: x[: tiles[0], 0], grid)
    return new.astype(w.dtype), scales, zero_points


def _sweep_static(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array,
    grid: Any,
    damping: float | jax.Array,
    settle: Any,
    act_order: bool,
    block: int,
) -> jax.Array:
    """Sweep over features whose scales are known, each as a group of its own."""
    block = min(block, len(w))
    if act_order:
        order = jnp.argsort(-jnp.diagonal(h), stable=True)
        w, keep, grid = jax.tree.map(lambda x: x[order], (w, keep, grid))
        h = h[order][:, order]
    decisions = jax.tree.map(lambda x: _split_groups(x, 1, block), (grid, keep))
    new, _ = sweep(
        w, h, damping, decisions, lambda rows, diagonal, decision: decision, settle,
        size=1, block=block,
    )  # fmt: skip
    return new[jnp.argsort(order)] if act_order else new


def _split_groups(rows: jax.Array, size: int, block: int) -> jax.Array:
    """Split rows into groups; pad the last block by repeating the last row."""
    groups = number(len(rows), size, block)
    missing = groups * size - len(rows)
    padded = jnp.pad(rows, ((0, missing), (0, 0)), mode="edge")
    return padded.reshape(groups, size, rows.shape[1])
