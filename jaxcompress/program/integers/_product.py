# SPDX-License-Identifier: Apache-2.0
"""Integer matrix products: multiply codes, then scale the sum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...leaves import QArray, dense, scales_as_floats
from ..products._site import Site

# Below this number of rows XLA for CPU uses no integer kernel and converts all weights.
_CPU_ROWS = 8
# int32 holds sums of this many products of two bytes, including corrections.
MAX_SUMMED = 2**15


class Codes(NamedTuple):
    """An operand on integers, equal to ``(codes - zero_point) * scale``."""

    codes: jax.Array  # int8, with the operand's shape
    scale: jax.Array  # float32, of length 1 along contraction axes
    zero_point: jax.Array | None  # int32, shaped like the scale


def as_codes(q: QArray) -> Codes:
    """Convert a quantized operand to ``Codes``, shifting unsigned codes to int8."""
    codes, zero_point = dense(q.codes), q.zero_point
    scale = scales_as_floats(q.scale, q.dtype)
    if zero_point is None:
        return Codes(codes, scale, None)
    zero_point = zero_point.astype(jnp.int32)
    if codes.dtype == jnp.uint8:
        half = 2 ** (q.bits - 1)
        codes = (codes.astype(jnp.int32) - half).astype(jnp.int8)
        zero_point = zero_point - half
    return Codes(codes, scale, zero_point)


def product(
    x: Codes, w: Codes, site: Site, stored: Sequence[int] | None = None
) -> jax.Array:
    """Multiply ``x`` by ``w`` in the order and along the axes of a site.

    The product is exact in int32. Both scales are applied in one float32 multiplication.

    Args:
      x: the data operand.
      w: the operand that comes from parameters.
      site: site of a ``dot_general``.
      stored: the order of the axes of ``w.codes``, as axes of the operand; None is that of
        the operand. XLA for CPU multiplies codes that were transposed first up to ten
        times as slowly, so they are multiplied as they lie in memory.

    Returns:
      Array with the shape and dtype of the site's result.
    """
    side = 1 - (site.weight or 0)
    stored = tuple(stored or range(w.codes.ndim))
    total = _accumulate(x.codes, w.codes, site, side, stored)
    summed = math.prod(site.operands[side].shape[i] for i in site.contraction[side])
    correction = None
    if x.zero_point is not None:
        ordered = w.codes.transpose(_inverse(stored))
        sums = _spread(_sums(ordered, site.contraction[1 - side]), site, 1 - side)
        correction = _spread(x.zero_point, site, side) * sums
    if w.zero_point is not None:
        sums = _spread(_sums(x.codes, site.contraction[side]), site, side)
        part = _spread(w.zero_point, site, 1 - side) * sums
        correction = part if correction is None else correction + part
        if x.zero_point is not None:
            zeros = _spread(x.zero_point, site, side) * summed
            correction -= zeros * _spread(w.zero_point, site, 1 - side)
    if correction is not None:
        total = total - correction
    scale = _spread(x.scale, site, side) * _spread(w.scale, site, 1 - side)
    return (total.astype(jnp.float32) * scale).astype(site.result.dtype)


def _accumulate(
    x: jax.Array, w: jax.Array, site: Site, side: int, stored: tuple[int, ...]
) -> jax.Array:
    free, outputs = _free(site, side), _free(site, 1 - side)
    summed_w, batch_w = (
        tuple(stored.index(i) for i in axes[1 - side])
        for axes in (site.contraction, site.batch)
    )
    # A product has the free axes of an operand in the order in which they are stored.
    back = [[i for i in stored if i in outputs].index(i) for i in outputs]

    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        pairs = [
            (x, w),
            (site.contraction[side], summed_w),
            (site.batch[side], batch_w),
        ]
        (lhs, rhs), summed, batch = pairs if side == 0 else [p[::-1] for p in pairs]
        out = lax.dot_general(
            lhs, rhs, (summed, batch), preferred_element_type=jnp.int32
        )
        first = len(batch_w) + (len(free) if side == 0 else 0)
        moved = [first + i for i in back]
        order = [*range(first), *moved, *range(first + len(moved), out.ndim)]
        return out.transpose(order)

    rows = math.prod(x.shape[i] for i in free)
    if site.batch[0] or rows >= _CPU_ROWS:
        return plain(x, w)

    def padded(x: jax.Array, w: jax.Array) -> jax.Array:
        summed = site.contraction[side]
        x = x.transpose(*free, *summed).reshape(rows, *(x.shape[i] for i in summed))
        x = jnp.pad(x, [(0, _CPU_ROWS - rows), *[(0, 0)] * len(summed)])
        own, other = tuple(range(1, x.ndim)), summed_w
        # Put the few rows first on either side; transposing the small result is cheap.
        out = lax.dot_general(
            x, w, ((own, other), ((), ())), preferred_element_type=jnp.int32
        )[:rows]
        out = out.transpose(0, *(1 + i for i in back))
        out = out if side == 0 else jnp.moveaxis(out, 0, -1)
        return out.reshape(site.result.shape)

    return lax.platform_dependent(x, w, cpu=padded, default=plain)


def _inverse(order: Sequence[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)


def _free(site: Site, side: int) -> list[int]:
    taken = (*site.contraction[side], *site.batch[side])
    return [i for i in range(len(site.operands[side].shape)) if i not in taken]


def _sums(codes: jax.Array, axes: Sequence[int]) -> jax.Array:
    return jnp.sum(codes, tuple(axes), dtype=jnp.int32, keepdims=True)


def _spread(x: jax.Array, site: Site, side: int) -> jax.Array:
    """Reshape an array of one operand to broadcast against the result."""
    free, batch = _free(site, side), list(site.batch[side])
    order = [*batch, *free, *site.contraction[side]]
    x = x.transpose(order)
    ones = (1,) * len(_free(site, 1 - side))
    shape = x.shape[: len(batch)], x.shape[len(batch) : len(batch) + len(free)]
    inner = (*shape[1], *ones) if side == 0 else (*ones, *shape[1])
    return x.reshape(*shape[0], *inner)
