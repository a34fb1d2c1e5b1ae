# SPDX-License-Identifier: Apache-2.0
"""Grids that LiteRT's integer operators prescribe for their results.

Its converter takes any grid for a result, but some operators read only one: a softmax and
a logistic function give multiples of 1/256, tanh of 1/128, and a pooling the grid of its
operand. Where the function was trained with another grid, the result is rounded twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...formats import Int
from ...program.dataflow import Constant, Graph, Operation
from .._products import is_rounded, origin
from ..targets import LITERT_GRIDS

_POOLS = ("reduce_window_sum", "reduce_window_max")


def prescribed(graph: Graph) -> dict[int, dict[str, Any]]:
    """Return the grid to round to first, by ``id`` of the "quantize" operation."""
    makers = graph.makers()
    grids = {}
    for op in graph.points():
        grid = _grid(op, makers)
        if grid is not None and not _same(grid, op.params):
            grids[id(op)] = grid
    return grids


def _grid(point: Operation, makers: Mapping[int, Operation]) -> dict[str, Any] | None:
    maker = origin(point.ins[0], makers)
    if maker is None:
        return None
    if maker.primitive == "div" and isinstance(maker.ins[1], Constant):
        maker = origin(maker.ins[0], makers)
    if maker is not None and maker.primitive in _POOLS:
        while maker is not None and maker.primitive in _POOLS:
            maker = origin(maker.ins[0], makers)
        return maker.params if maker and maker.primitive == "quantize" else None
    if maker is None or not is_rounded(_argument(maker, makers), makers):
        return None
    name = "softmax" if _is_softmax(maker, makers) else maker.primitive
    if name not in LITERT_GRIDS:
        return None
    scale, zero_point = LITERT_GRIDS[name]
    return {
        "scale": np.float32(scale),
        "zero_point": np.int32(zero_point),
        "format": Int(8, symmetric=False),
    }


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return all(a[key] == b[key] for key in ("scale", "zero_point", "format"))


def _is_softmax(op: Operation, makers: Mapping[int, Operation]) -> bool:
    if op.primitive != "div":
        return False
    top, bottom = (origin(x, makers) for x in op.ins)
    return (
        top is not None
        and bottom is not None
        and top.primitive == "exp"
        and bottom.primitive == "reduce_sum"
        and origin(bottom.ins[0], makers) is top
    )


def _argument(op: Operation, makers: Mapping[int, Operation]) -> Any:
    """Return what a function of one value is computed from."""
    if not _is_softmax(op, makers):
        return op.ins[0]
    exp = origin(op.ins[0], makers)
    shifted = origin(exp.ins[0], makers) if exp else None
    return shifted.ins[0] if shifted else op.ins[0]
