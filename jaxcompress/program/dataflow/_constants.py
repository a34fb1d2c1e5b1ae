# SPDX-License-Identifier: Apache-2.0
"""Evaluate equations on constants; codes survive what only moves elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ...formats import Int
from ...leaves import QArray, dense, scales_as_floats
from ...numerics import expand_tiles
from ..trace._primitives import ELEMENTWISE, MOVES
from ._graph import Codes, Constant

_CONTAINED = MOVES - {"convert_element_type"} | {
    "dynamic_slice", "dynamic_index_in_dim", "slice", "split", "unstack",
}  # fmt: skip


def constant(leaf: Any, path: str) -> Constant:
    """Return a parameter as a constant, with its codes if it is a packed integer."""
    codes = _codes(leaf) if isinstance(leaf, QArray) else None
    value = np.asarray(dense(leaf)) if codes is None else codes.dense()
    return Constant(value.astype(np.dtype(leaf.dtype)), codes, path)


def _codes(leaf: QArray) -> Codes | None:
    if not isinstance(leaf.format, Int):
        return None
    codes = np.asarray(dense(leaf.codes)).astype(np.int32)
    scale = scales_as_floats(leaf.scale, leaf.value_dtype)

    def whole(tiles: Any) -> np.ndarray:
        sizes = [
            1 if a == 1 else b for a, b in zip(tiles.shape, codes.shape, strict=True)
        ]
        return np.asarray(expand_tiles(tiles, sizes))

    zero_point = leaf.zero_point
    scales = whole(scale)
    points = (
        np.zeros(scales.shape, np.int32)
        if zero_point is None
        else whole(zero_point).astype(np.int32)
    )
    return Codes(codes, scales, points, leaf.format)


def evaluate(
    primitive: str,
    op: Callable[..., Any],
    params: dict[str, Any],
    ins: Sequence[Constant],
    *,
    many: bool,
) -> list[Constant]:
    """Evaluate an equation on constants.

    Args:
      primitive: its name.
      op: the equation as a function of its operands.
      params: its parameters.
      ins: its operands.
      many: true if ``op`` returns several results.
    """
    leaf = next((c.leaf for c in ins if c.leaf), "")
    if primitive == "broadcast_in_dim":
        values = [_broadcast(ins[0].value, params)]
    elif primitive in ELEMENTWISE and not many:
        values = [_elementwise(op, [c.value for c in ins])]
    else:
        values = _call(op, [c.value for c in ins], many)
    first = ins[0].codes if ins else None
    if first is None or primitive not in _CONTAINED or many:
        scaled = _scaled(primitive, ins) if len(values) == 1 else None
        return [Constant(v, scaled, leaf) for v in values]

    def moved(x: np.ndarray) -> np.ndarray:
        x = np.broadcast_to(x, first.codes.shape)
        if primitive == "broadcast_in_dim":
            return _broadcast(x, params)
        return _call(op, [x, *(c.value for c in ins[1:])], False)[0]

    codes = Codes(
        moved(first.codes),
        collapse(moved(first.scale)),
        collapse(moved(first.zero_point)),
        first.format,
    )
    return [Constant(codes.dense().astype(values[0].dtype), aligned(codes), leaf)]


def _call(op: Callable[..., Any], values: Sequence[Any], many: bool) -> list[Any]:
    outs = op(*values)
    return [_array(x) for x in (outs if many else [outs])]


def _array(x: Any) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _broadcast(x: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    """Broadcast without copying."""
    shape = params["shape"]
    axes = params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for axis, size in zip(axes, x.shape, strict=True):
        sizes[axis] = size
    return np.broadcast_to(x.reshape(sizes), shape)


def _elementwise(op: Callable[..., Any], values: Sequence[np.ndarray]) -> np.ndarray:
    """Compute what is repeated along an axis only once."""
    shape = max((v.shape for v in values), key=len)
    if any(v.shape not in ((), shape) for v in values):
        return _call(op, values, False)[0]
    repeated = [
        n > 1 and all(v.ndim == 0 or v.strides[i] == 0 for v in values)
        for i, n in enumerate(shape)
    ]
    if not any(repeated):
        return _call(op, values, False)[0]
    once = tuple(slice(0, 1) if r else slice(None) for r in repeated)
    (out,) = _call(op, [v[once] if v.ndim else v for v in values], False)
    return np.broadcast_to(out, shape)


def _scaled(primitive: str, ins: Sequence[Constant]) -> Codes | None:
    """Return the codes of a quantized constant times a positive one, scaled instead."""
    if primitive == "convert_element_type":
        same = ins[0].dtype.kind == "f" or ins[0].dtype.name == "bfloat16"
        return ins[0].codes if same else None
    if primitive not in ("mul", "div"):
        return None
    quantized = [c for c in ins if c.codes is not None]
    others = [c for c in ins if c.codes is None]
    if len(quantized) != 1 or (primitive == "div" and ins[0] is not quantized[0]):
        return None
    codes, factor = quantized[0].codes, collapse(others[0].value)
    assert codes is not None
    along = {i for i, n in enumerate(factor.shape) if n > 1}
    scaled = {i for i, n in enumerate(codes.scale.shape) if n > 1}
    # A factor along other axes than the scales would give every weight its own scale.
    if not np.all(factor > 0) or (scaled and not along <= scaled):
        return None
    scale = codes.scale * factor if primitive == "mul" else codes.scale / factor
    scale = np.asarray(scale, np.float32)
    return aligned(Codes(codes.codes, scale, codes.zero_point, codes.format))


def aligned(codes: Codes) -> Codes:
    """Give scales and zero points the same shape."""
    shape = np.broadcast_shapes(codes.scale.shape, codes.zero_point.shape)
    return Codes(
        codes.codes,
        np.broadcast_to(codes.scale, shape),
        np.broadcast_to(codes.zero_point, shape),
        codes.format,
    )


def collapse(x: np.ndarray) -> np.ndarray:
    """Return an array with length 1 along each axis along which it is constant."""
    for axis, size in enumerate(x.shape):
        first = x.take([0], axis) if size else x
        if size > 1 and (x.strides[axis] == 0 or (x == first).all()):
            x = first
    return x
