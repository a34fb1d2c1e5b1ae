# SPDX-License-Identifier: Apache-2.0
"""Operations that move axes. Most of them write nothing."""

from __future__ import annotations

import numpy as np

from .._graph import Constant, Operation, Tensor
from ._build import Build, Unsupported
from ._value import (
    Value,
    arrange,
    constant,
    full,
    natural,
    stored,
    whole_order,
)


def _move(b: Build, op: Operation, to: dict[int, int | None]) -> None:
    """Rename axes: logical axis ``a`` becomes ``to[a]``, or is dropped at None."""
    value, (out,) = b.read(op.ins[0]), op.outs
    name = value.name
    if value.array is not None:
        name = b.constant(value.array)
    order = [None if a is None else to[a] for a in value.order]
    scaled = {t for a in value.scaled if (t := to[a]) is not None}
    b.define(out, name, order, scaled, value.grid)


def _transpose(b: Build, op: Operation) -> None:
    _move(b, op, {a: i for i, a in enumerate(op.params["permutation"])})


def _broadcast_in_dim(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    if len(op.ins) > 1:
        raise Unsupported("a shape that depends on data")
    scaled = b.read(x).scaled
    to: dict[int, int | None] = {}
    for axis, target in enumerate(op.params["broadcast_dimensions"]):
        same = x.shape[axis] == out.shape[target] and target not in out.batch
        to[axis] = int(target) if axis in scaled or same else None
    _move(b, op, to)


def _squeeze(b: Build, op: Operation) -> None:
    gone = {d % len(op.ins[0].shape) for d in op.params["dimensions"]}
    kept = [a for a in range(len(op.ins[0].shape)) if a not in gone]
    _move(b, op, {**dict.fromkeys(gone), **{a: i for i, a in enumerate(kept)}})


def _expand_dims(b: Build, op: Operation) -> None:
    new = {d % len(op.outs[0].shape) for d in op.params["dimensions"]}
    kept = [i for i in range(len(op.outs[0].shape)) if i not in new]
    _move(b, op, dict(enumerate(kept)))


def _groups(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> list[tuple[list[int], list[int]]]:
    """Return which axes become which: smallest runs of equal numbers of elements."""
    groups = []
    i = j = 0
    while i < len(before) or j < len(after):
        ins, outs = [before[i][0]], [after[j][0]]
        a, c = before[i][1], after[j][1]
        i, j = i + 1, j + 1
        while a != c:
            if a < c:
                ins.append(before[i][0])
                a *= before[i][1]
                i += 1
            else:
                outs.append(after[j][0])
                c *= after[j][1]
                j += 1
        groups.append((ins, outs))
    return groups


def _reshape(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    if len(op.ins) > 1:
        raise Unsupported("a shape that depends on data")
    if 0 in x.shape:
        raise Unsupported("an array without elements")
    value = b.read(x)
    if value.array is not None:
        dense = np.broadcast_to(
            value.array.reshape([n if a in value.order else 1 for a, n in enumerate(x.shape)]),
            x.shape,
        )
        value = constant(dense.reshape(out.shape))
        b.define(out, arrange(b, value, out.shape, value.order), value.order)
        return
    before = [(a, n) for a, n in enumerate(x.shape) if n != 1]
    after = [(a, n) for a, n in enumerate(out.shape) if n != 1]
    groups = _groups(before, after)
    simple = {i[0]: o[0] for i, o in groups if len(i) == len(o) == 1}
    if len(simple) == len(groups):
        _move(b, op, {a: simple.get(a) for a in range(len(x.shape))})
        return
    order = _grouped_order(value, x.shape, groups)
    name = full(b, value, x.shape, order)
    group_of = {a: g for g, (ins, _) in enumerate(groups) for a in ins}
    sequence = list(dict.fromkeys(group_of[a] for a in order if a in group_of))
    target = [a for g in sequence for a in groups[g][1]]
    scaled = _scaled(groups, value.scaled, out)
    sizes = [out.shape[a] for a in target]
    if len(scaled) <= 1:
        shape = b.integers(-1 if a in scaled else n for a, n in zip(target, sizes, strict=True))
    else:
        shape = b.sizes(sizes, [a in scaled for a in target])
    name = b.rounded(b.node("Reshape", [name, shape]), value.grid)
    b.define(out, name, target, scaled, value.grid)


def _grouped_order(
    value: Value, shape: tuple[int, ...], groups: list[tuple[list[int], list[int]]]
) -> tuple[int, ...]:
    """Return the stored order if each group lies together in it, else the logical one."""
    order = whole_order(value, shape)
    text = [a for a in order if shape[a] != 1]
    for ins, _ in groups:
        at = text.index(ins[0])
        if text[at : at + len(ins)] != ins:
            return natural(shape)
    return order


def _scaled(
    groups: list[tuple[list[int], list[int]]], scaled: frozenset[int], out: Tensor
) -> set[int]:
    """Return the axes of a reshaped result that grow with the batch."""
    result = set()
    for ins, outs in groups:
        if scaled & set(ins):
            # The batch is the major axis, unless the result says otherwise.
            result.add(next((a for a in outs if a in out.batch), outs[0]))
    return result


def _concatenate(b: Build, op: Operation) -> None:
    (out,), axis = op.outs, op.params["dimension"]
    values = [b.read(atom) for atom in op.ins]
    leader = next(v for v in values if v.array is None)
    order = whole_order(leader, out.shape)
    batch = frozenset(out.batch - {axis})
    scaled = frozenset[int]().union(*(v.scaled for v in values))
    # Constants repeat along axes of the batch, or are as long as the example.
    for atom, value in zip(op.ins, values, strict=True):
        grown = (scaled | batch) - {axis}
        if value.array is not None and grown & set(value.order):
            raise Unsupported("a constant with one row for each example of the batch")
        assert len(atom.shape) == len(order)
    names = [
        full(b, value, atom.shape, order, (scaled | batch) - {axis})
        for atom, value in zip(op.ins, values, strict=True)
    ]
    name = b.node("Concat", names, axis=order.index(axis))
    b.define(out, name, order, scaled)


def _stack(b: Build, op: Operation) -> None:
    (out,), axis = op.outs, op.params["axis"] % len(op.outs[0].shape)
    apart = []
    for atom in op.ins:
        shape = (*atom.shape[:axis], 1, *atom.shape[axis:])
        one = Tensor(shape, out.dtype, frozenset(a + (a >= axis) for a in _batch(atom)))
        _expand_dims(b, Operation("expand_dims", {"dimensions": (axis,)}, [atom], [one], ""))
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
        _squeeze(b, Operation("squeeze", {"dimensions": (axis,)}, [row], [out], ""))


def _tile(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    times = [int(n) for n in op.params["reps"]]
    value = b.read(x)
    order = list(whole_order(value, x.shape))
    name = full(b, value, x.shape, tuple(order))
    name = b.node("Tile", [name, b.integers(times[a] for a in order)])
    b.define(out, name, order, value.scaled)


def _stored_with(b: Build, op: Operation, axes: list[int]) -> tuple[str, list[int | None]]:
    """Return a value that is stored with some axes, and the order of all its axes."""
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    order: list[int | None] = list(value.order)
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
        b.define(out, part, order, value.scaled - {axis}, value.grid)


def _slice(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    starts, limits = op.params["start_indices"], op.params["limit_indices"]
    strides = op.params["strides"] or (1,) * len(starts)
    whole = [
        start == 0 and limit == n and stride == 1
        for start, limit, stride, n in zip(starts, limits, strides, x.shape, strict=True)
    ]
    write_slice(b, op, out, [a for a, w in enumerate(whole) if not w], starts, limits, strides)


def write_slice(b, op, out, axes, starts, limits, strides) -> None:  # noqa: ANN001
    """Write a slice with constant bounds along some axes."""
    value, shape = b.read(op.ins[0]), op.ins[0].shape
    # Nothing changes where the value repeats.
    axes = [a for a in axes if value.array is not None or a in stored(value, shape)]
    name, order = _stored_with(b, op, axes)
    scaled = set(value.scaled)
    ends = []
    for a in axes:
        whole_end = limits[a] == shape[a]
        if a in scaled and not (whole_end and a in out.batch):
            scaled.discard(a)
        ends.append(2**62 if whole_end and a in value.scaled else limits[a])
    if axes:
        bounds = [[starts[a] for a in axes], ends]
        where = [order.index(a) for a in axes]
        rows = [*bounds, where, [strides[a] for a in axes]]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
        name = b.rounded(name, value.grid)
    b.define(out, name, order, scaled, value.grid)


def _rev(b: Build, op: Operation) -> None:
    axes = [a for a in op.params["dimensions"] if op.ins[0].shape[a] != 1]
    value = b.read(op.ins[0])
    axes = [a for a in axes if a in stored(value, op.ins[0].shape)]
    name, order = _stored_with(b, op, axes)
    if axes:
        where = [order.index(a) for a in axes]
        ones, n = [-1] * len(axes), len(axes)
        rows = [ones, [-(2**62)] * n, where, ones]
        name = b.node("Slice", [name, *(b.integers(row) for row in rows)])
        name = b.rounded(name, value.grid)
    b.define(op.outs[0], name, order, value.scaled, value.grid)


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
    b.define(out, name, order, b.read(x).scaled - set(axes))


RULES = {
    "broadcast_in_dim": _broadcast_in_dim,
    "concatenate": _concatenate,
    "expand_dims": _expand_dims,
    "pad": _pad,
    "reshape": _reshape,
    "rev": _rev,
    "slice": _slice,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
}
