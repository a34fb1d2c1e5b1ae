# SPDX-License-Identifier: Apache-2.0
"""Matrix products: Gemm with constants, MatMul of data."""

from __future__ import annotations

import numpy as np

from ...program.dataflow import Constant, Operation, Tensor
from ._build import Build, carrier, length
from ._codes import dequantized, product_bias
from ._value import Order, Value, full, stored

_ROUNDS = (
    "sessions of onnxruntime round the floats that meet integer weights to 8 bits, unless "
    "their option session.qdq_matmulnbits_accuracy_level is 1, as in jaxcompress"
)


def _dot(b: Build, op: Operation) -> None:
    left, right = op.ins[:2]
    _, batch = op.params["dimension_numbers"]
    constants = [isinstance(atom, Constant) for atom in (left, right)]
    floats = carrier(op.outs[0].dtype) == np.float32 == carrier(left.dtype)
    if any(constants) and not batch[0] and floats:
        _dense(b, op, weight_first=constants[0])
    else:
        _matmul(b, op)


def free_axes(op: Operation, side: int) -> list[int]:
    """Return the axes of an operand that are axes of the result."""
    contracted, batch = op.params["dimension_numbers"]
    taken = (*contracted[side], *batch[side])
    return [a for a in range(len(op.ins[side].shape)) if a not in taken]


def _near(value: Value, shape: tuple[int, ...], axes: list[int]) -> list[int]:
    """Sort axes as they are stored; those that are not stored keep their place."""
    order = stored(value, shape)
    if any(a not in order for a in axes):
        return list(axes)
    return sorted(axes, key=order.index)


def _dense(b: Build, op: Operation, *, weight_first: bool) -> None:
    data = 1 if weight_first else 0
    x, weight = op.ins[data], op.ins[1 - data]
    (out,) = op.outs
    assert isinstance(weight, Constant)
    pairs = dict(
        zip(
            op.params["dimension_numbers"][0][data],
            op.params["dimension_numbers"][0][1 - data],
            strict=True,
        )
    )
    value = b.read(x)
    summed = _near(value, x.shape, list(pairs))
    rows = _near(value, x.shape, free_axes(op, data))
    columns = free_axes(op, 1 - data)
    k, n = length(x.shape, summed), length(weight.shape, columns)
    name = full(b, value, x.shape, (*(rows or [None]), *summed))
    if len(rows) > 1 or len(summed) != 1:
        name = b.node("Reshape", [name, b.integers([-1, k])])
        name = b.rounded(name, value.grid)
    order = (*(pairs[a] for a in summed), *columns)
    if weight.codes is None:
        matrix = np.asarray(weight.value, np.float32).transpose(order).reshape(k, n)
        kernel = b.constant(matrix, weight.leaf.replace("/", ".") or "constant")
    else:
        kernel = dequantized(b, weight, order, (k, n))
        if value.grid is None:
            b.differences[_ROUNDS] = None
    ins = [name, kernel]
    if len(op.ins) > 2:
        bias = np.asarray(op.ins[2].value, np.float32)  # type: ignore[union-attr]
        ins.append(product_bias(b, bias, x, weight, order, (k, n), axis=1))
    name = b.node("Gemm", ins)
    # Rows of the result, in the order of the operand; then its columns.
    first = len(columns) if weight_first else 0
    where = {a: first + i for i, a in enumerate(free_axes(op, data))}
    stored_rows: Order = tuple(where[a] for a in rows) or (None,)
    start = 0 if weight_first else len(rows)
    stored_columns = tuple(range(start, start + len(columns)))
    if len(rows) > 1 or len(columns) != 1:
        sizes = [
            1 if a is None else out.shape[a] for a in (*stored_rows, *stored_columns)
        ]
        grows = [a in out.batch for a in (*stored_rows, *stored_columns)]
        name = _reshaped(b, name, sizes, grows)
    b.define(out, name, (*stored_rows, *stored_columns))


def _matmul(b: Build, op: Operation) -> None:
    (out,), (summed, batch) = op.outs, op.params["dimension_numbers"]
    free = [free_axes(op, side) for side in (0, 1)]
    values = [b.read(atom) for atom in op.ins]
    plain = [(*batch[0], *free[0], *summed[0]), (*batch[1], *summed[1], *free[1])]
    turned = [(*batch[0], *summed[0], *free[0]), (*batch[1], *free[1], *summed[1])]
    # a @ b, or the transpose of b.T @ a.T: whichever moves less.
    swap = _moves(op, values, turned) < _moves(op, values, plain)
    orders = turned if swap else plain
    names = []
    n_batch = len(batch[0])
    for side, (atom, value, order) in enumerate(
        zip(op.ins, values, orders, strict=True)
    ):
        name = full(b, value, atom.shape, order)
        name = _as_matrix(
            b, name, atom, value, order, n_batch, len(summed[0]), side ^ swap
        )
        names.append(name)
    names = names[::-1] if swap else names
    name = b.node("MatMul", names)
    dtype, result = carrier(op.ins[0].dtype), carrier(out.dtype)
    name = name if dtype == result else b.cast(name, result)
    left = list(range(n_batch, n_batch + len(free[0])))
    right = list(range(n_batch + len(free[0]), len(out.shape)))
    groups = [[i] for i in range(n_batch)] + ([right, left] if swap else [left, right])
    _as_result(b, name, out, groups)


def _moves(op: Operation, values: list[Value], orders: list[tuple[int, ...]]) -> int:
    """Return how many elements have to be moved."""
    moved = 0
    for atom, value, order in zip(op.ins, values, orders, strict=True):
        have = [a for a in stored(value, atom.shape) if a is not None]
        want = [a for a in order if a in have]
        moved += length(atom.shape, range(len(atom.shape))) * (have != want)
    return moved


def _as_matrix(
    b: Build,
    name: str,
    atom: Tensor | Constant,
    value: Value,
    order: tuple[int, ...],
    n_batch: int,
    n_summed: int,
    side: int,
) -> str:
    """Join the free and the summed axes of an operand, or add one of length 1."""
    rest = order[n_batch:]
    cut = len(rest) - n_summed if side == 0 else n_summed
    parts = [rest[:cut], rest[cut:]]
    if len(parts[0]) == len(parts[1]) == 1:
        return name
    groups = [[a] for a in order[:n_batch]] + [list(part) for part in parts]
    sizes = [length(atom.shape, group) for group in groups]
    grows = [bool(value.batch & set(group)) for group in groups]
    return b.rounded(_reshaped(b, name, sizes, grows), value.grid)


def _reshaped(b: Build, name: str, sizes: list[int], grows: list[bool]) -> str:
    if sum(grows) <= 1:
        shape = b.integers(-1 if g else s for s, g in zip(sizes, grows, strict=True))
    else:
        shape = b.sizes(sizes, grows)
    return b.node("Reshape", [name, shape])


def _as_result(b: Build, name: str, out: Tensor, groups: list[list[int]]) -> None:
    """Split the axes of a product again."""
    order = [a for group in groups for a in group]
    if any(len(group) != 1 for group in groups):
        sizes = [out.shape[a] for a in order]
        name = _reshaped(b, name, sizes, [a in out.batch for a in order])
    b.define(out, name, order)


RULES = {"dot_general": _dot}
