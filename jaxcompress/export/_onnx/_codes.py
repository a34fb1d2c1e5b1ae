# SPDX-License-Identifier: Apache-2.0
"""Quantized activations and weights: pairs of QuantizeLinear and DequantizeLinear."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ...program.dataflow import Codes, Constant, Operation, Tensor
from ._build import Build, Unsupported

# Operations whose result has values of its operand only: the grid of the operand.
_MOVES = (
    "broadcast_in_dim",
    "copy",
    "expand_dims",
    "gather",
    "reduce_max",
    "reduce_window_max",
    "relu",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
)


class Grid(NamedTuple):
    """Integers that a runtime can hold: one scale, or one for each index of an axis."""

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None


def grid(codes: Codes, order: Any, shape: Any) -> Grid | None:
    """Return moved codes; None if their scales differ along more than one axis."""

    def moved(array: np.ndarray) -> np.ndarray:
        spread = np.broadcast_to(array, codes.codes.shape)
        return spread.transpose(order).reshape(shape)

    # A scale of zero would lose the bias that is stored with it.
    empty = moved(codes.scale) == 0
    zero_point = moved(codes.zero_point).astype(np.int64)
    steps = np.where(empty, zero_point, moved(codes.codes).astype(np.int64))
    scale = np.where(empty, np.float32(1), moved(codes.scale).astype(np.float32))
    for axis in (None, *range(steps.ndim)):
        others = tuple(i for i in range(steps.ndim) if i != axis)
        first = tuple(
            slice(0, 1) if i in others else slice(None) for i in range(steps.ndim)
        )
        if (scale == scale[first]).all() and (zero_point == zero_point[first]).all():
            size = () if axis is None else (-1,)
            return Grid(
                steps, scale[first].reshape(size), zero_point[first].reshape(size), axis
            )
    return None


def dequantized(b: Build, atom: Constant, order: Any = None, shape: Any = None) -> str:
    """Write the codes of a constant, moved, and return the name of its values."""
    codes = atom.codes
    assert codes is not None
    order = tuple(range(codes.codes.ndim)) if order is None else tuple(order)
    moved = codes.codes.transpose(order)
    shape = moved.shape if shape is None else tuple(shape)
    held = grid(codes, order, shape)
    kind = _container(codes.format, b.opset)
    name = atom.leaf.replace("/", ".") or "codes"
    if held is None or kind is None:
        reason = "scales along several axes" if held is None else "an older opset"
        b.differences[
            f"{atom.leaf or 'a constant'} is stored as floats: {reason} "
            f"({codes.format.bits} bits)"
        ] = None
        return b.constant(codes.dense().transpose(order).reshape(shape), name)
    # onnxruntime multiplies integers only if the zero point is there, also if it is 0.
    parts = (held.scale, held.zero_point.astype(kind))
    ins = [b.constant(held.codes.astype(kind), name), *map(b.constant, parts)]
    if held.axis is None:
        return b.node("DequantizeLinear", ins)
    return b.node("DequantizeLinear", ins, axis=held.axis)


def looked_up(
    b: Build, table: Constant, indices: str, axis: int, rank: int
) -> str | None:
    """Write a look-up that turns only the codes it takes into floats.

    Args:
      b: the graph that grows.
      table: a constant with codes.
      indices: name of the indices.
      axis: axis of the table that they count along.
      rank: number of axes of the indices.

    Returns:
      The name of the values; None if the codes are not bytes.
    """
    assert table.codes is not None
    held = grid(table.codes, range(len(table.shape)), table.shape)
    kind = _container(table.codes.format, b.opset)
    if held is None or kind not in (np.int8, np.uint8):
        return None
    codes = b.constant(held.codes.astype(kind), table.leaf.replace("/", ".") or "codes")
    taken = b.node("Gather", [codes, indices], axis=axis)
    if held.axis != axis:
        parts = (b.constant(held.scale), b.constant(held.zero_point.astype(kind)))
        if held.axis is None:
            return b.node("DequantizeLinear", [taken, *parts])
        moved = held.axis + (rank - 1) * (held.axis > axis)
        return b.node("DequantizeLinear", [taken, *parts], axis=moved)
    others = [i for i in range(len(table.shape) - 1 + rank) if not 0 <= i - axis < rank]

    def of_rows(values: np.ndarray) -> str:
        rows = b.node("Gather", [b.constant(values.astype(np.float32)), indices])
        return b.node("Unsqueeze", [rows, b.integers(others)]) if others else rows

    steps = b.cast(taken, np.float32)
    if held.zero_point.any():
        steps = b.node("Sub", [steps, of_rows(held.zero_point)])
    return b.node("Mul", [steps, of_rows(held.scale)])


def _container(format: Any, opset: int) -> Any:
    """Return the smallest integer dtype that a runtime has for a format."""
    symmetric = format.symmetric
    if format.bits > 8:
        return None if opset < 21 else np.int16 if symmetric else np.uint16
    if format.bits <= 4 and opset >= 21:
        return ml_dtypes.int4 if symmetric else ml_dtypes.uint4
    return np.int8 if symmetric else np.uint8


def _point_of(b: Build, atom: Tensor | Constant) -> Operation | None:
    """Return the point whose grid the values of an operand lie on."""
    op = b.produced_by(atom)
    while op is not None and op.primitive in _MOVES:
        op = b.produced_by(op.ins[0])
    return op if op is not None and op.primitive == "quantize" else None


def product_bias(
    b: Build,
    bias: np.ndarray,
    x: Tensor | Constant,
    weight: Constant,
    order: Any,
    shape: Any,
    axis: int,
) -> str:
    """Write the bias of a product, as integers if its operands are.

    Args:
      b: the graph that grows.
      bias: one value for each output.
      x: the operand that is data.
      weight: the other operand; it is stored as moved to ``order`` and ``shape``.
      order: as above.
      shape: as above.
      axis: axis of outputs of the stored weight.

    Returns:
      The name of a float vector.
    """
    bias = bias.astype(np.float32)
    point = _point_of(b, x)
    if point is not None and weight.codes is not None:
        held = grid(weight.codes, order, shape)
        small = _container(weight.codes.format, b.opset) in (np.int8, np.uint8)
        if held is not None and held.axis in (None, axis) and small:
            scale = np.float32(point.params["scale"]) * held.scale
            steps = np.rint(bias.astype(np.float64) / scale)
            # Beyond, the sum of products and bias may overflow.
            if np.abs(steps).max(initial=0) < 2**30:
                codes = b.constant(steps.astype(np.int32), "bias")
                scales = np.broadcast_to(scale, bias.shape).astype(np.float32)
                return b.node("DequantizeLinear", [codes, b.constant(scales)], axis=0)
    return b.constant(bias, "bias")


def _quantize(b: Build, op: Operation) -> None:
    (x,), (out,) = op.ins, op.outs
    format = op.params["format"]
    kind = np.dtype(
        {
            (False, True): np.int8,
            (False, False): np.uint8,
            (True, True): np.int16,
            (True, False): np.uint16,
        }[format.bits > 8, format.symmetric]
    )
    if format.bits > 8 and b.opset < 21:
        raise Unsupported("codes of 16 bits need opset 21")
    scale = np.asarray(op.params["scale"], np.float32).reshape(())
    zero_point = np.asarray(op.params["zero_point"]).astype(kind).reshape(())
    value = b.read(x)
    if value.array is not None:
        raise Unsupported("the point of a constant")
    name = value.name
    info = np.iinfo(kind)
    if format.low - info.min + info.max - format.high > 1:
        low, high = (
            (np.float32(code) - np.float32(zero_point)) * scale
            for code in (format.low, format.high)
        )
        name = b.node("Clip", [name, b.constant(low), b.constant(high)])
    elif (format.low, format.high) != (info.min, info.max):
        b.differences[
            f"points may take the code {info.min}, which the format leaves out; "
            "narrow=False trains with it"
        ] = None
    names = (b.constant(scale), b.constant(zero_point))
    b.define(out, b.rounded(name, names), value.order, names)


RULES = {"quantize": _quantize}
