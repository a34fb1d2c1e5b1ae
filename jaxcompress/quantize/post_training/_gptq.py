# SPDX-License-Identifier: Apache-2.0
"""GPTQ: rounding a layer feature by feature; those behind make up for the error."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from ...formats import Format
from ...layerwise import number, sweep
from ...numerics import expand_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax


def gptq(
    w: jax.Array,
    h: jax.Array,
    fmt: Format,
    *,
    scale_shape: Sequence[int] | None = None,
    scale: Scale = absmax,
    keep: jax.Array | None = None,
    act_order: bool = False,
    static_groups: bool = False,
    damping: float | jax.Array = 0.01,
    block: int = 128,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Round a layer to a grid so that its outputs change little.

    Features are rounded in order, and the error of each is spread over those behind it.
    Costs a Cholesky factorization and ``features^2 * outputs`` products.

    Args:
      w: float (features, outputs).
      h: float (features, features): ``X^T X`` of the inputs, in any unit.
      fmt: which levels there are.
      scale_shape: (groups, outputs), or any that divides the shape of ``w``; None: one
        scale for each output.
      scale: how to choose them. Those of more than one group are chosen when the pass
        comes to the group, from its weights as they are by then.
      keep: bool like ``w``. Weights where it is False are zero in the result, the others
        make up for that, and they do not count for the scales. None: all are kept.
      act_order: go by decreasing diagonal of ``h`` and not in the order of features: what
        matters most is rounded while there is much to make up for it. All scales are
        then chosen before, since a group is not rounded as one.
      static_groups: choose all scales before, from the weights as they are given.
      damping: share of its mean that is added to the diagonal of ``h``.
      block: features whose error is spread over those behind by one product. A multiple
        of the group is taken where scales are chosen on the way.

    Returns:
      Weights like ``w``, on the grid; float32 scales and zero points (None where the
      format is symmetric) of ``scale_shape``. ``fake_quant`` with these gives the weights
      once more, and ``to_qarray`` the codes.

    Raises:
      ValueError: if the shapes do not fit each other.

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
      Pre-trained Transformers", https://arxiv.org/abs/2210.17323. The order by activation
      is that of the authors' code. Dead features, which are zero in every row, are
      rounded to nearest here and set to zero there.
    """
    if w.ndim != 2 or h.shape != (len(w), len(w)):
        raise ValueError(
            f"weights of shape {w.shape} and second moments of shape {h.shape}: gptq takes "
            "one matrix (features, outputs) and (features, features); jax.vmap maps it."
        )
    tiles = (1, w.shape[1]) if scale_shape is None else tuple(scale_shape)
    if len(tiles) != 2 or any(n % t for n, t in zip(w.shape, tiles, strict=True)):
        raise ValueError(f"scale_shape={tiles} does not divide the weights {w.shape}.")
    return _gptq(
        w, h, keep, damping, Partial(scale), fmt=fmt, tiles=tiles, block=block,
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
    wide = w.astype(jnp.float32)
    kept = jnp.ones(w.shape, bool) if keep is None else keep
    if static:
        grid = scale(jnp.where(kept, wide, 0), tiles, fmt)
        # A row for every feature, wherever in the order it is.
        rows = jax.tree.map(lambda x: expand_tiles(x, (len(w), tiles[1])), grid)
    else:
        grid, rows = None, None

    def settle(found: Any, k: jax.Array, row: jax.Array) -> jax.Array:
        (scales, zero_points), kept_here = found
        shape, grid = (1, tiles[1]), fixed(scales, zero_points)
        near = fake_quant(row[None], fmt, scale_shape=shape, scale=grid)
        return jnp.where(kept_here[k], near[0], 0)

    if grid is not None:
        found = _in_order(wide, h, kept, rows, damping, settle, act_order, block)
        return found.astype(w.dtype), *grid

    def begin(rows: jax.Array, diagonal: jax.Array, kept: jax.Array) -> Any:
        return scale(jnp.where(kept, rows, 0), (1, tiles[1]), fmt), kept

    size = len(w) // tiles[0]
    block = max(block // size, 1) * size
    given = _in_groups(kept, size, block)
    found, (grid, _) = sweep(
        wide, h, damping, given, begin, settle, size=size, block=block
    )
    scales, zero_points = jax.tree.map(lambda x: x[: tiles[0], 0], grid)
    return found.astype(w.dtype), scales, zero_points


def _in_order(
    w: jax.Array,
    h: jax.Array,
    keep: jax.Array,
    grid: Any,
    damping: float | jax.Array,
    settle: Any,
    act_order: bool,
    block: int,
) -> jax.Array:
    """The pass over features whose scales are known, each a group of its own."""
    block = min(block, len(w))
    if act_order:
        order = jnp.argsort(-jnp.diagonal(h), stable=True)
        w, keep, grid = jax.tree.map(lambda x: x[order], (w, keep, grid))
        h = h[order][:, order]
    given = jax.tree.map(lambda x: _in_groups(x, 1, block), (grid, keep))
    new, _ = sweep(
        w, h, damping, given, lambda rows, diagonal, given: given, settle,
        size=1, block=block,
    )  # fmt: skip
    return new[jnp.argsort(order)] if act_order else new


def _in_groups(rows: jax.Array, size: int, block: int) -> jax.Array:
    """Rows in groups, the last block filled up with its last row."""
    groups = number(len(rows), size, block)
    missing = groups * size - len(rows)
    filled = jnp.pad(rows, ((0, missing), (0, 0)), mode="edge")
    return filled.reshape(groups, size, rows.shape[1])
