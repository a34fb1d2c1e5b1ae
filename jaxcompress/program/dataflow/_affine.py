# SPDX-License-Identifier: Apache-2.0
"""Fold what scales and shifts the result of a product into its weight and one bias."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from ._constants import collapse
from ._graph import Codes, Constant, Graph, Operation, Tensor

_PRODUCTS = ("dot_general", "conv_general_dilated")
_AFFINE = ("add", "add_any", "sub", "mul", "div", "neg")


def fold_affine(graph: Graph) -> None:
    """Fold batch norms and other factors and shifts per output into products, in place.

    A factor multiplies the scales of a quantized weight, so its codes stay as they are, up
    to their sign.
    """
    readers = graph.readers()
    results = {id(x) for x in graph.outputs}
    gone: set[int] = set()
    for product in list(graph.operations):
        if product.primitive not in _PRODUCTS:
            continue
        sides = [i for i, x in enumerate(product.ins[:2]) if isinstance(x, Constant)]
        if len(sides) != 1:
            continue
        axes = output_axes(product, sides[0])
        chain = _chain(product, axes, readers, results)
        if (
            any(op.primitive not in ("add", "add_any") for op in chain)
            or len(chain) > 1
        ):
            folded = _folded(product, sides[0], axes, chain)
            if folded is None:
                continue
            gone.update(id(op) for op in chain)
            at = graph.operations.index(chain[-1])
            graph.operations[at] = folded
    graph.operations = [op for op in graph.operations if id(op) not in gone]


def output_axes(product: Operation, side: int) -> dict[int, int]:
    """Return ``{axis of the result: axis of the weight}`` for the weight's output axes."""
    numbers = product.params["dimension_numbers"]
    if product.primitive == "conv_general_dilated":
        return {numbers.out_spec[1]: numbers.rhs_spec[0]} if side == 1 else {}
    (lhs, rhs), (lhs_batch, rhs_batch) = numbers
    used = (set(lhs) | set(lhs_batch), set(rhs) | set(rhs_batch))
    free = [
        [i for i in range(len(product.ins[s].shape)) if i not in used[s]]
        for s in (0, 1)
    ]
    start = len(lhs_batch) + (len(free[0]) if side else 0)
    axes = {start + i: axis for i, axis in enumerate(free[side])}
    batch = (lhs_batch, rhs_batch)[side]
    return axes | {i: axis for i, axis in enumerate(batch)}


def _chain(
    product: Operation,
    axes: dict[int, int],
    readers: dict[int, list[Operation]],
    results: set[int],
) -> list[Operation]:
    """Return the operations after a product that scale and shift each of its outputs."""
    chain: list[Operation] = []
    value = product.outs[0]
    while id(value) not in results:
        after = readers.get(id(value), [])
        if len(after) != 1 or after[0].primitive not in _AFFINE:
            break
        (op,) = after
        others = [x for x in op.ins if x is not value]
        if op.primitive != "neg":
            if len(others) != 1 or not isinstance(others[0], Constant):
                break
            if op.primitive == "div" and op.ins[0] is not value:
                break
            along = {i for i, n in enumerate(_spread(others[0], value)) if n > 1}
            if not along <= set(axes):
                break
        if op.outs[0].dtype != value.dtype or op.outs[0].shape != value.shape:
            break
        chain.append(op)
        value = op.outs[0]
    return chain


def _spread(constant: Constant, value: Tensor) -> Sequence[int]:
    shape = collapse(constant.value).shape
    return (1,) * (len(value.shape) - len(shape)) + tuple(shape)


def _folded(
    product: Operation, side: int, axes: dict[int, int], chain: list[Operation]
) -> Operation | None:
    """Change the weight of a product, and return the addition that replaces a chain."""
    value = product.outs[0]
    factor, shift = np.ones((1,) * len(value.shape)), np.zeros((1,) * len(value.shape))
    for op in chain:
        if op.primitive == "neg":
            factor, shift = -factor, -shift
            continue
        (other,) = (x for x in op.ins if isinstance(x, Constant))
        number = collapse(other.value).astype(np.float64)
        number = number.reshape(_spread(other, value))
        if op.primitive in ("mul", "div"):
            number = number if op.primitive == "mul" else 1 / number
            factor, shift = factor * number, shift * number
        else:
            sign = -1 if op.primitive == "sub" else 1
            if sign < 0 and op.ins[0] is other:
                factor, shift = -factor, -shift
                sign = 1
            shift = shift + sign * number
    weight = product.ins[side]
    assert isinstance(weight, Constant)
    scaled = _scaled(weight, factor, axes)
    if scaled is None:
        return None
    product.ins[side] = scaled
    bias = np.broadcast_to(shift.astype(value.dtype), value.shape)
    last = chain[-1]
    return Operation(
        "add",
        {},
        [value, Constant(bias, leaf=weight.leaf)],
        last.outs,
        last.scope,
        _add,
    )


def _add(x: object, y: object) -> list[object]:
    return [x + y]  # pyright: ignore[reportOperatorIssue]


def _scaled(
    weight: Constant, factor: np.ndarray, axes: dict[int, int]
) -> Constant | None:
    """Multiply the outputs of a weight by factors."""
    by_weight = np.ones((1,) * weight.value.ndim)
    for result_axis, axis in axes.items():
        size = factor.shape[result_axis]
        if size > 1:
            index = [0] * factor.ndim
            index[result_axis] = slice(None)  # pyright: ignore[reportArgumentType, reportCallIssue]
            others = [
                i for i, n in enumerate(factor.shape) if n > 1 and i != result_axis
            ]
            if others:
                return None
            shape = [1] * weight.value.ndim
            shape[axis] = size
            by_weight = by_weight * factor[tuple(index)].reshape(shape)
    if not any(n > 1 for n in factor.shape):
        by_weight = by_weight * factor.reshape(-1)[0]
    value = (weight.value.astype(np.float64) * by_weight).astype(weight.dtype)
    if weight.codes is None:
        return dataclasses.replace(weight, value=value)
    codes = _scaled_codes(weight.codes, by_weight)
    return codes and Constant(codes.dense().astype(weight.dtype), codes, weight.leaf)


def _scaled_codes(codes: Codes, factor: np.ndarray) -> Codes | None:
    """Scale codes; a negative factor turns their signs, and zero leaves only zeros."""
    if np.any(codes.zero_point) and np.any(factor < 0):
        return None
    sign = np.where(factor < 0, -1, np.where(factor == 0, 0, 1))
    turned = codes.codes * sign if np.any(sign != 1) else codes.codes
    if turned.max(initial=0) > codes.format.high:
        return None
    magnitude = np.where(factor == 0, 1, np.abs(factor))
    scale = (codes.scale * magnitude).astype(np.float32)
    zero_point = np.broadcast_to(codes.zero_point, scale.shape)
    return Codes(turned, scale, zero_point, codes.format)


def collapse_along(
    constant: Constant, value: Tensor, axes: Sequence[int]
) -> np.ndarray | None:
    """Return a constant that a value is combined with, along some of the value's axes.

    Args:
      constant: the constant.
      value: the value.
      axes: axes of the value.

    Returns:
      Array with these axes only, or None if the constant varies along others.
    """
    small = collapse(constant.value).reshape(_spread(constant, value))
    if any(n > 1 and i not in axes for i, n in enumerate(small.shape)):
        return None
    rest = [i for i in range(small.ndim) if i not in axes]
    moved = small.transpose([*axes, *rest]).reshape([small.shape[i] for i in axes])
    return np.broadcast_to(moved, [value.shape[i] for i in axes])
