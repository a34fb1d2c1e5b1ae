# SPDX-License-Identifier: Apache-2.0
"""Operations that pick elements by index or by order."""

from __future__ import annotations

import numpy as np

from ...program.dataflow import Atom, Constant, Operation, Tensor
from ._build import Build, Unsupported, carrier
from ._codes import looked_up
from ._parts import one_row, write_slice
from ._shape import expand_dims
from ._value import full, natural, whole_order

_END = 2**62  # of an axis, however long


def _whole(b: Build, atom: object) -> tuple[str, list[int]]:
    """Return an operand with all of its axes, and their order."""
    value, shape = b.read(atom), atom.shape  # type: ignore[arg-type, attr-defined]
    order = whole_order(value, shape)
    return full(b, value, shape, order), list(order)


def _indices(b: Build, op: Operation, drop: int) -> str:
    """Return the start indices of a gather, without the axis of coordinates."""
    atom = op.ins[1]
    value, shape = b.read(atom), atom.shape
    order = natural(shape)[:drop] + natural(shape)[drop + 1 :]
    return full(b, value, shape, order)


def _gather(b: Build, op: Operation) -> None:
    x, index = op.ins
    (out,), numbers = op.outs, op.params["dimension_numbers"]
    sizes = tuple(op.params["slice_sizes"])
    batching = tuple(numbers.operand_batching_dims)
    indexed = tuple(numbers.start_index_map)
    whole = [a for a in range(len(sizes)) if sizes[a] == x.shape[a]]
    if len(indexed) == 1 and not batching and len(index.shape) == 1:
        return _one_slice(b, op)
    if len(indexed) != 1 or index.shape[-1] != 1:
        raise Unsupported("indices along several axes")
    (axis,) = indexed
    rest = [a for a in range(len(sizes)) if a != axis and a not in batching]
    if sizes[axis] != 1 or any(a not in whole for a in rest):
        raise Unsupported("slices of more than one element")
    if axis not in numbers.collapsed_slice_dims:
        raise Unsupported("an indexed axis that stays")
    if batching:
        return _along_axis(b, op, axis, rest)
    at = _indices(b, op, len(index.shape) - 1)
    at = _bounded(b, op, at, x.shape[axis])
    name, order = _taken(b, x, at, axis, len(index.shape) - 1)
    where = order.index(axis)
    offsets = iter(numbers.offset_dims)
    of_operand = {a: next(offsets) for a in range(len(sizes)) if a != axis}
    of_index = [a for a in range(len(out.shape)) if a not in numbers.offset_dims]
    before = [of_operand[a] for a in order[:where]]
    after = [of_operand[a] for a in order[where + 1 :]]
    b.define(out, name, (*before, *of_index, *after))


def _taken(
    b: Build, x: Atom, indices: str, axis: int, rank: int
) -> tuple[str, list[int]]:
    """Return elements along an axis, and the order of the axes that they are taken from."""
    if isinstance(x, Constant) and x.codes is not None:
        name = looked_up(b, x, indices, axis, rank)
        if name is not None:
            return name, list(natural(x.shape))
    name, order = _whole(b, x)
    return b.node("Gather", [name, indices], axis=order.index(axis)), order


def _bounded(b: Build, op: Operation, name: str, n: int) -> str:
    """Clip indices if JAX would."""
    mode = str(op.params["mode"])
    if "CLIP" in mode.upper() or mode == "1":
        dtype = carrier(op.ins[1].dtype)
        return b.node("Clip", [name, b.number(0, dtype), b.number(n - 1, dtype)])
    if "FILL" in mode.upper():
        b.differences[
            "an index out of bounds is an error of the runtime, where JAX fills in NaN"
        ] = None
    return name


def _along_axis(b: Build, op: Operation, axis: int, rest: list[int]) -> None:
    """Write ``take_along_axis``."""
    x, index = op.ins
    (out,), numbers = op.outs, op.params["dimension_numbers"]
    batching = tuple(numbers.operand_batching_dims)
    places = tuple(numbers.start_indices_batching_dims)
    free = [a for a in range(len(index.shape) - 1) if a not in places]
    if rest or len(free) != 1 or len(x.shape) != len(index.shape) - 1:
        raise Unsupported("batches of slices")
    partner = {**dict(zip(batching, places, strict=True)), axis: free[0]}
    name = full(b, b.read(x), x.shape, natural(x.shape))
    order = tuple(partner[a] for a in range(len(x.shape)))
    at = full(b, b.read(index), index.shape, order)
    name = b.node("GatherElements", [name, at], axis=axis)
    b.define(out, name, order)


def _one_slice(b: Build, op: Operation) -> None:
    """Write a gather of one slice, as a dynamic slice."""
    x, index = op.ins
    numbers, sizes = op.params["dimension_numbers"], tuple(op.params["slice_sizes"])
    (axis,) = numbers.start_index_map
    others = [a for a in range(len(sizes)) if a != axis]
    if any(sizes[a] != x.shape[a] for a in others):
        raise Unsupported("a slice along several axes")
    start = full(b, b.read(index), index.shape, (0,))
    name, order = _sliced(b, x, {axis: start}, sizes)
    gone = numbers.collapsed_slice_dims
    kept = [a for a in range(len(sizes)) if a not in gone]
    where = {a: i for i, a in enumerate(kept)}
    b.define(op.outs[0], name, [where.get(a) for a in order])


def _sliced(
    b: Build, x: object, starts: dict[int, str], sizes: tuple[int, ...]
) -> tuple[str, list[int]]:
    """Write a slice from starts that are vectors of length 1."""
    name, order = _whole(b, x)
    axes = list(starts)
    vectors, ends = [], []
    for a in axes:
        last = x.shape[a] - sizes[a]  # type: ignore[attr-defined]
        start = b.cast(starts[a], np.int64)
        bounds = [b.number(n, np.dtype(np.int64)) for n in (0, last)]
        start = b.node("Clip", [start, *bounds])
        vectors.append(start)
        ends.append(b.node("Add", [start, b.integers([sizes[a]])]))
    joined = [
        row[0] if len(row) == 1 else b.node("Concat", row, axis=0)
        for row in (vectors, ends)
    ]
    at = b.integers(order.index(a) for a in axes)
    return b.node("Slice", [name, *joined, at]), order


def _dynamic_slice(b: Build, op: Operation) -> None:
    x, *starts = op.ins
    (out,), sizes = op.outs, tuple(op.params["slice_sizes"])
    axes = [a for a in range(len(sizes)) if sizes[a] != x.shape[a]]
    axes += [a for a in one_row(b, op) if a not in axes]
    if all(isinstance(starts[a], Constant) for a in axes):
        first = [0] * len(sizes)
        for a in axes:
            start = int(np.asarray(starts[a].value))  # type: ignore[union-attr]
            start += x.shape[a] * (start < 0)
            first[a] = min(max(start, 0), x.shape[a] - sizes[a])
        last = [i + n for i, n in zip(first, sizes, strict=True)]
        return write_slice(b, op, axes, first, last, [1] * len(sizes))
    where = {}
    for a in axes:
        where[a] = b.node(
            "Unsqueeze", [full(b, b.read(starts[a]), (), ()), b.integers([0])]
        )
    name, order = _sliced(b, x, where, sizes)
    b.define(out, name, order)


def _update_slice(b: Build, op: Operation) -> None:
    x, update, *starts = op.ins
    (out,) = op.outs
    axes = [a for a in range(len(x.shape)) if update.shape[a] != x.shape[a]]
    if isinstance(update, Tensor):
        axes += [a for a in out.batch - b.read(update).batch if a not in axes]
    if not all(isinstance(starts[a], Constant) for a in axes):
        raise Unsupported("a start that is data")
    order = natural(x.shape)
    grown = out.batch
    if not axes:
        name = full(b, b.read(update), update.shape, order, grown)
        return b.define(out, name, order)
    if len(axes) > 1:
        raise Unsupported("an update that is smaller along several axes")
    (axis,) = axes
    grown = grown - {axis}
    whole = full(b, b.read(x), x.shape, order, grown)
    part = full(b, b.read(update), update.shape, order, grown)
    n, size = x.shape[axis], update.shape[axis]
    start = int(np.asarray(starts[axis].value))  # type: ignore[union-attr]
    start = min(max(start + n * (start < 0), 0), n - size)
    parts = [part]
    end = _END if axis in out.batch else n
    for low, high, place in ((0, start, 0), (start + size, end, 2)):
        if low < high:
            rows = [b.integers([i]) for i in (low, high, axis)]
            piece = b.node("Slice", [whole, *rows])
            parts.insert(0 if place == 0 else len(parts), piece)
    name = parts[0] if len(parts) == 1 else b.node("Concat", parts, axis=axis)
    b.define(out, name, order)


def _scatter(b: Build, op: Operation) -> None:
    """Write ``x.at[..., i].set(values)`` for a constant ``i``."""
    x, index, update = op.ins
    numbers = op.params["dimension_numbers"]
    axes = tuple(numbers.scatter_dims_to_operand_dims)
    if not isinstance(index, Constant) or index.shape != (1,) or len(axes) != 1:
        raise Unsupported("indices that are data, or several of them")
    (axis,), gone = axes, tuple(numbers.inserted_window_dims)
    window = tuple(range(len(update.shape)))
    if gone not in ((), axes) or tuple(numbers.update_window_dims) != window:
        raise Unsupported("updates of several places")
    start = int(index.value[0])
    size = 1 if gone else update.shape[axis]
    if not 0 <= start <= x.shape[axis] - size:
        raise Unsupported("an index out of bounds")
    if gone:
        shape = (*update.shape[:axis], 1, *update.shape[axis:])
        batch = op.outs[0].batch - {axis}
        whole = Tensor(shape, update.dtype, batch)
        expand_dims(
            b, Operation("expand_dims", {"dimensions": (axis,)}, [update], [whole], "")
        )
        update = whole
    starts = [
        Constant(np.asarray(start if a == axis else 0)) for a in range(len(x.shape))
    ]
    _update_slice(b, Operation("", {}, [x, update, *starts], op.outs, op.scope))


def _top_k(b: Build, op: Operation) -> None:
    x = op.ins[0]
    axis = op.params.get("axis", len(x.shape) - 1) % len(x.shape)
    name, order = _whole(b, x)
    k = b.integers([op.params["k"]])
    names = b.node_with("TopK", [name, k], 2, axis=order.index(axis))
    b.define(op.outs[0], names[0], order)
    b.define(op.outs[1], b.cast(names[1], carrier(op.outs[1].dtype)), order)


def _sort(b: Build, op: Operation) -> None:
    if op.params["num_keys"] != 1:
        raise Unsupported("several keys")
    key, *others = op.ins
    axis = op.params["dimension"]
    value = b.read(key)
    order = whole_order(value, key.shape)
    batch = op.outs[0].batch
    name = full(b, value, key.shape, order, batch)
    n = b.integers([key.shape[axis]])
    at = order.index(axis)
    names = b.node_with("TopK", [name, n], 2, axis=at, largest=0)
    b.define(op.outs[0], names[0], order)
    for atom, out in zip(others, op.outs[1:], strict=True):
        operand = full(b, b.read(atom), atom.shape, order, batch)
        moved = b.node("GatherElements", [operand, names[1]], axis=at)
        b.define(out, moved, order)


RULES = {
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _update_slice,
    "gather": _gather,
    "scatter": _scatter,
    "sort": _sort,
    "top_k": _top_k,
}
