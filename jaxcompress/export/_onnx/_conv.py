# SPDX-License-Identifier: Apache-2.0
"""Convolutions, with channels before positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...program.dataflow import Constant, Operation, Tensor
from ._build import Build, Unsupported, carrier
from ._codes import dequantized, product_bias
from ._value import full


def _conv(b: Build, op: Operation) -> None:
    x, weight = op.ins[:2]
    (out,), params = op.outs, op.params
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1:
        raise Unsupported("groups of the batch")
    if carrier(out.dtype) != np.float32:
        raise Unsupported(f"a convolution of {out.dtype}")
    if len(numbers.lhs_spec) < 3:
        raise Unsupported("a convolution without positions")
    if len(numbers.lhs_spec) > 5:
        raise Unsupported("a convolution of more than three dimensions")
    name = full(b, b.read(x), x.shape, tuple(numbers.lhs_spec))
    write = _direct if all(n == 1 for n in params["lhs_dilation"]) else _transposed
    name = write(b, op, name, weight)
    b.define(out, name, numbers.out_spec)


def _bias(b: Build, op: Operation, order: Any, *, integers: bool = True) -> list[str]:
    """Return the name of the bias, if there is one."""
    if len(op.ins) < 3:
        return []
    x, weight, bias = op.ins
    assert isinstance(bias, Constant)
    outputs = weight.shape[order[0]]
    vector = np.broadcast_to(np.asarray(bias.value), outputs)
    if not isinstance(weight, Constant) or not integers:
        return [b.constant(vector.astype(np.float32), "bias")]
    shape = [weight.shape[a] for a in order]
    return [product_bias(b, vector, x, weight, order, shape, axis=0)]


def _direct(b: Build, op: Operation, name: str, weight: Tensor | Constant) -> str:
    params = op.params
    order = tuple(params["dimension_numbers"].rhs_spec)
    padding = params["padding"]
    if any(n < 0 for pair in padding for n in pair):
        at = list(range(2, 2 + len(padding)))
        starts = [max(0, -low) for low, _ in padding]
        ends = [high if high < 0 else 2**62 for _, high in padding]
        rows = [starts, ends, at, [1] * len(at)]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
    if isinstance(weight, Constant) and weight.codes is not None:
        kernel = dequantized(b, weight, order)
    else:
        kernel = full(b, b.read(weight), weight.shape, order)
    return b.node(
        "Conv",
        [name, kernel, *_bias(b, op, order)],
        dilations=[int(n) for n in params["rhs_dilation"]],
        group=int(params["feature_group_count"]),
        kernel_shape=[int(weight.shape[a]) for a in order[2:]],
        pads=[max(0, int(pair[side])) for side in (0, 1) for pair in padding],
        strides=[int(n) for n in params["window_strides"]],
    )


def _transposed(b: Build, op: Operation, name: str, weight: Tensor | Constant) -> str:
    params = op.params
    if any(n != 1 for n in params["window_strides"]):
        raise Unsupported("strides and a dilated operand at once")
    if not isinstance(weight, Constant):
        raise Unsupported("a transposed convolution whose kernel is data")
    if weight.codes is not None:
        b.differences[
            f"{weight.leaf or 'a kernel'} is stored as floats: a transposed convolution"
        ] = None
    order = tuple(params["dimension_numbers"].rhs_spec)
    kernel = np.asarray(weight.value, np.float32).transpose(order)
    groups = int(params["feature_group_count"])
    outs, ins, *window = kernel.shape
    kernel = kernel.reshape(groups, outs // groups, ins, *window).swapaxes(1, 2)
    kernel = kernel.reshape(groups * ins, outs // groups, *window)
    kernel = np.flip(kernel, tuple(range(2, kernel.ndim)))
    pads, crops = [], []
    dilation = [int(n) for n in params["rhs_dilation"]]
    for n, step, pair in zip(window, dilation, params["padding"], strict=True):
        reach = step * (n - 1)
        pads.append([max(0, reach - int(p)) for p in pair])
        crops.append([max(0, int(p) - reach) for p in pair])
    bias = _bias(b, op, order, integers=False)
    padded = any(n for pair in crops for n in pair)
    name = b.node(
        "ConvTranspose",
        [name, b.constant(kernel, "kernel"), *([] if padded else bias)],
        dilations=dilation,
        group=groups,
        kernel_shape=list(window),
        pads=[pair[side] for side in (0, 1) for pair in pads],
        strides=[int(n) for n in params["lhs_dilation"]],
    )
    if not padded:
        return name
    # Beyond what the kernel reaches there are zeros.
    rows = [[pair[side] for pair in crops] for side in (0, 1)]
    at = b.integers(range(2, 2 + len(crops)))
    name = b.node("Pad", [name, b.integers(rows[0] + rows[1]), "", at])
    if bias:
        shape = b.integers([1, -1] + [1] * len(crops))
        name = b.node("Add", [name, b.node("Reshape", [bias[0], shape])])
    return name


RULES = {"conv_general_dilated": _conv}
