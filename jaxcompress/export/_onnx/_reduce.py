# SPDX-License-Identifier: Apache-2.0
"""Sums, extremes and the like over axes or windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...program.dataflow import Operation
from ._build import Build, Unsupported, carrier
from ._value import full, natural, stored, whole_order

_KINDS = {
    "reduce_max": "ReduceMax",
    "reduce_mean": "ReduceMean",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
    "reduce_and": "ReduceMin",
    "reduce_or": "ReduceMax",
}
_REPEATS_MATTER = ("reduce_prod", "reduce_sum")


def _operand(b: Build, op: Operation, axes: list[int]) -> tuple[str, list[Any]]:
    """Return the operand, stored with the axes that matter, and its order."""
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    order = list(stored(value, shape))
    if value.array is not None or any(shape[a] != 1 and a not in order for a in axes):
        order = list(whole_order(value, shape))
        return full(b, value, shape, tuple(order)), order
    return value.name, order


def _dropped(order: list[Any], axes: Any) -> list[Any]:
    """Return an order in which some axes have length 1 and are no axes any more."""
    return [
        None if a is None or a in axes else a - sum(gone < a for gone in axes)
        for a in order
    ]


def _reduce(b: Build, op: Operation) -> None:
    (out,) = op.outs
    axes = [int(a) for a in op.params["axes"]]
    repeats = op.primitive in _REPEATS_MATTER
    name, order = _operand(b, op, axes if repeats else [])
    at = [i for i, a in enumerate(order) if a in axes]
    boolean = op.ins[0].dtype == np.bool_
    if at:
        name = b.cast(name, np.int32) if boolean else name
        pooled = op.primitive == "reduce_mean" and at == list(range(2, len(order)))
        if pooled and carrier(out.dtype) == np.float32:
            name = b.node("GlobalAveragePool", [name])
        else:
            name = b.node(_KINDS[op.primitive], [name, b.integers(at)], keepdims=1)
        name = b.cast(name, np.bool_) if boolean else name
    b.define(out, name, _dropped(order, axes))


def _arg(b: Build, op: Operation) -> None:
    (axis,) = op.params["axes"]
    name, order = _operand(b, op, [axis])
    if axis not in order:
        raise Unsupported("an axis of length 1")
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[op.primitive]
    name = b.node(kind, [name], axis=order.index(axis), keepdims=1)
    dtype = carrier(op.params["index_dtype"])
    name = name if dtype == np.int64 else b.cast(name, dtype)
    b.define(op.outs[0], name, _dropped(order, [axis]))


def _cumsum(b: Build, op: Operation) -> None:
    axis = op.params["axis"]
    name, order = _operand(b, op, [axis])
    if axis in order:
        at = b.constant(np.asarray(order.index(axis), np.int64))
        name = b.node("CumSum", [name, at], reverse=int(op.params["reverse"]))
    b.define(op.outs[0], name, order)


def _window(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    params, rank = op.params, len(x.shape)
    window, strides = params["window_dimensions"], params["window_strides"]
    padding, dilation = params["padding"], params["window_dilation"]
    if any(n != 1 for n in params["base_dilation"]):
        raise Unsupported("a dilated operand")
    if carrier(x.dtype) != np.float32:
        raise Unsupported(f"windows of {x.dtype}")
    slid = [
        a
        for a in range(rank)
        if window[a] != 1 or strides[a] != 1 or tuple(padding[a]) != (0, 0)
    ]
    order = _pooled_order(b, op, slid)
    value = b.read(x)
    name = full(b, value, x.shape, order)
    wanted: dict[str, Any] = {
        "kernel_shape": [int(window[a]) for a in order[2:]],
        "strides": [int(strides[a]) for a in order[2:]],
        "pads": [int(padding[a][side]) for side in (0, 1) for a in order[2:]],
    }
    if any(dilation[a] != 1 for a in order):
        wanted["dilations"] = [int(dilation[a]) for a in order[2:]]
    grid = None
    if op.primitive == "reduce_window_max":
        grid = value.grid
        name = b.rounded(b.node("MaxPool", [name], **wanted), grid)
    elif op.primitive == "reduce_window_min":
        name = b.node("Neg", [b.node("MaxPool", [b.node("Neg", [name])], **wanted)])
    else:
        name = b.node("AveragePool", [name], count_include_pad=1, **wanted)
        if not params.get("average"):
            count = float(np.prod([int(n) for n in window]))
            name = b.node("Mul", [name, b.number(count, np.dtype(np.float32))])
    b.define(out, name, order, grid)


def _pooled_order(b: Build, op: Operation, slid: list[int]) -> tuple[int, ...]:
    """Return two axes that stay, followed by those along which the window slides."""
    x = op.ins[0]
    rank = len(x.shape)
    if rank < 3 or rank - len(slid) < 2:
        raise Unsupported("windows along more axes than all but two")
    order = whole_order(b.read(x), x.shape)
    if set(order[:2]) & set(slid):
        order = natural(x.shape)
        still = [a for a in order if a not in slid]
        # The batch and the last axis that stays (channels, in most layouts) go first.
        first = [still[0], still[-1]]
        order = (*first, *(a for a in order if a not in first))
    return order


RULES = {
    **dict.fromkeys(_KINDS, _reduce),
    "argmax": _arg,
    "argmin": _arg,
    "cumsum": _cumsum,
    "reduce_window_max": _window,
    "reduce_window_min": _window,
    "reduce_window_sum": _window,
}
