# SPDX-License-Identifier: Apache-2.0
"""Operations that cut arrays, and put parts together."""

from __future__ import annotations

from collections.abc import Sequence

from ...program.dataflow import Constant, Operation, Tensor
from ._build import Build, Unsupported
from ._shape import expand_dims, squeeze
from ._value import full, stored, whole_order


def _concatenate(b: Build, op: Operation) -> None:
    (out,), axis = op.outs, op.params["dimension"]
    values = [b.read(atom) for atom in op.ins]
    leader = next(v for v in values if v.array is None)
    order = whole_order(leader, out.shape)
    batch = out.batch - {axis}
    # Constants repeat along axes of the batch, or are as long as the example.
    if any(v.array is not None and batch & set(v.order) for v in values):
        raise Unsupported("a constant with one row for each example of the batch")
    names = [
        full(b, value, atom.shape, order, batch)
        for atom, value in zip(op.ins, values, strict=True)
    ]
    name = b.node("Concat", names, axis=order.index(axis))
    b.define(out, name, order)


def _stack(b: Build, op: Operation) -> None:
    (out,), axis = op.outs, op.params["axis"] % len(op.outs[0].shape)
    apart = []
    for atom in op.ins:
        shape = (*atom.shape[:axis], 1, *atom.shape[axis:])
        one = Tensor(shape, out.dtype, frozenset(a + (a >= axis) for a in _batch(atom)))
        expand_dims(
            b, Operation("expand_dims", {"dimensions": (axis,)}, [atom], [one], "")
        )
        apart.append(one)
    _concatenate(b, Operation("concatenate", {"dimension": axis}, apart, [out], ""))


def _batch(atom: Tensor | Constant) -> frozenset[int]:
    return atom.batch if isinstance(atom, Tensor) else frozenset()


def _unstack(b: Build, op: Operation) -> None:
    x, axis = op.ins[0], op.params["axis"] % len(op.ins[0].shape)
    for i, out in enumerate(op.outs):
        start, limit = [0] * len(x.shape), list(x.shape)
        start[axis], limit[axis] = i, i + 1
        shape = tuple(1 if a == axis else n for a, n in enumerate(x.shape))
        row = Tensor(shape, out.dtype, _batch(x) - {axis})
        bounds = {"start_indices": start, "limit_indices": limit, "strides": None}
        _slice(b, Operation("slice", bounds, [x], [row], ""))
        squeeze(b, Operation("squeeze", {"dimensions": (axis,)}, [row], [out], ""))


def _tile(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    times = [int(n) for n in op.params["reps"]]
    value = b.read(x)
    order = list(whole_order(value, x.shape))
    name = full(b, value, x.shape, tuple(order))
    name = b.node("Tile", [name, b.integers(times[a] for a in order)])
    b.define(out, name, order)


def _stored_with(b: Build, op: Operation, axes: Sequence[int]) -> tuple[str, list]:
    """Return a value that is stored with some axes, and the order of all its axes."""
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    order: list = list(value.order)
    if value.array is not None or any(a not in order for a in axes):
        order = list(whole_order(value, shape))
        return full(b, value, shape, tuple(order)), order
    return value.name, order


def _split(b: Build, op: Operation) -> None:
    axis = op.params["axis"]
    name, order = _stored_with(b, op, [axis])
    sizes = [int(n) for n in op.params["sizes"]]
    if len(sizes) == 1:
        names: tuple[str, ...] = (name,)
    else:
        ins = [name, b.integers(sizes)]
        names = b.node_with("Split", ins, len(sizes), axis=order.index(axis))
    value = b.read(op.ins[0])
    for part, out in zip(names, op.outs, strict=True):
        part = b.rounded(part, value.grid)
        b.define(out, part, order, value.grid)


def _slice(b: Build, op: Operation) -> None:
    x = op.ins[0]
    starts, limits = op.params["start_indices"], op.params["limit_indices"]
    strides = op.params["strides"] or (1,) * len(starts)
    whole = [(0, n, 1) for n in x.shape]
    bounds = zip(starts, limits, strides, strict=True)
    axes = [a for a, bound in enumerate(bounds) if bound != whole[a]]
    axes += [a for a in one_row(b, op) if a not in axes]
    write_slice(b, op, axes, starts, limits, strides)


def one_row(b: Build, op: Operation) -> frozenset[int]:
    """Return axes of the batch of which a slice takes one row, which is all of one."""
    return b.read(op.ins[0]).batch - op.outs[0].batch


def write_slice(
    b: Build,
    op: Operation,
    axes: list[int],
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int],
) -> None:
    """Write a slice with constant bounds along some axes; bounds are for all axes."""
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    # Nothing changes where the value repeats.
    axes = [a for a in axes if value.array is not None or a in stored(value, shape)]
    name, order = _stored_with(b, op, axes)
    grown = op.outs[0].batch
    ends = [2**62 if a in grown else limits[a] for a in axes]
    if axes:
        bounds = [[starts[a] for a in axes], ends]
        where = [order.index(a) for a in axes]
        rows = [*bounds, where, [strides[a] for a in axes]]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
        name = b.rounded(name, value.grid)
    b.define(op.outs[0], name, order, value.grid)


def _rev(b: Build, op: Operation) -> None:
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    # Nothing changes where the value repeats.
    axes = [a for a in stored(value, shape) if a is not None]
    axes = [a for a in axes if a in op.params["dimensions"]]
    name, order = _stored_with(b, op, axes)
    if axes:
        where = [order.index(a) for a in axes]
        ones, n = [-1] * len(axes), len(axes)
        rows = [ones, [-(2**62)] * n, where, ones]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
        name = b.rounded(name, value.grid)
    b.define(op.outs[0], name, order, value.grid)


def _pad(b: Build, op: Operation) -> None:
    x, filler = op.ins
    (out,), config = op.outs, op.params["padding_config"]
    if any(interior for _, _, interior in config):
        raise Unsupported("padding between elements")
    axes = [a for a, (low, high, _) in enumerate(config) if low or high]
    name, order = _stored_with(b, op, axes)
    at = [order.index(a) for a in axes]
    low = [config[a][0] for a in axes]
    high = [config[a][1] for a in axes]
    if any(n < 0 for n in (*low, *high)):
        starts = [max(0, -n) for n in low]
        ends = [n if n < 0 else 2**62 for n in high]
        rows = [starts, ends, at, [1] * len(at)]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
    pads = [max(0, n) for n in (*low, *high)]
    if any(pads):
        with_ = full(b, b.read(filler), (), ())
        name = b.node("Pad", [name, b.integers(pads), with_, b.integers(at)])
    b.define(out, name, order)


RULES = {
    "concatenate": _concatenate,
    "pad": _pad,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "unstack": _unstack,
}
