# SPDX-License-Identifier: Apache-2.0
"""Operations that move axes. Most of them write nothing."""

from __future__ import annotations

import numpy as np

from ...program.dataflow import Operation
from ._build import Build, Unsupported
from ._value import (
    Value,
    arrange,
    constant,
    full,
    natural,
    whole_order,
)


def _move(b: Build, op: Operation, to: dict[int, int | None]) -> None:
    """Rename axes: logical axis ``a`` becomes ``to[a]``, or is dropped at None."""
    value, (out,) = b.read(op.ins[0]), op.outs
    name = value.name
    if value.array is not None:
        name = b.constant(value.array)
    order = [None if a is None else to[a] for a in value.order]
    b.define(out, name, order, value.grid)


def _transpose(b: Build, op: Operation) -> None:
    _move(b, op, {a: i for i, a in enumerate(op.params["permutation"])})


def _broadcast_in_dim(b: Build, op: Operation) -> None:
    x, (out,) = op.ins[0], op.outs
    if len(op.ins) > 1:
        raise Unsupported("a shape that depends on data")
    grown = b.read(x).batch
    to: dict[int, int | None] = {}
    for axis, target in enumerate(op.params["broadcast_dimensions"]):
        same = x.shape[axis] == out.shape[target] and target not in out.batch
        to[axis] = int(target) if axis in grown or same else None
    _move(b, op, to)


def squeeze(b: Build, op: Operation) -> None:
    gone = {d % len(op.ins[0].shape) for d in op.params["dimensions"]}
    kept = [a for a in range(len(op.ins[0].shape)) if a not in gone]
    _move(b, op, {**dict.fromkeys(gone), **{a: i for i, a in enumerate(kept)}})


def expand_dims(b: Build, op: Operation) -> None:
    new = {d % len(op.outs[0].shape) for d in op.params["dimensions"]}
    kept = [i for i in range(len(op.outs[0].shape)) if i not in new]
    _move(b, op, dict(enumerate(kept)))


def _groups(
    before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> list[tuple[list[int], list[int]]]:
    """Return which axes become which: smallest runs of equal numbers of elements."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(before) and j < len(after):
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
    if groups:  # a batch of length 1 is left over
        groups[-1][0].extend(a for a, _ in before[i:])
        groups[-1][1].extend(a for a, _ in after[j:])
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
            value.array.reshape(
                [n if a in value.order else 1 for a, n in enumerate(x.shape)]
            ),
            x.shape,
        )
        value = constant(dense.reshape(out.shape))
        b.define(out, arrange(b, value, out.shape, value.order), value.order)
        return
    before = [(a, n) for a, n in enumerate(x.shape) if n != 1 or a in value.batch]
    after = [(a, n) for a, n in enumerate(out.shape) if n != 1 or a in out.batch]
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
    sizes = [out.shape[a] for a in target]
    if len(out.batch) <= 1:
        shape = b.integers(
            -1 if a in out.batch else n for a, n in zip(target, sizes, strict=True)
        )
    else:
        shape = b.sizes(sizes, [a in out.batch for a in target])
    name = b.rounded(b.node("Reshape", [name, shape]), value.grid)
    b.define(out, name, target, value.grid)


def _grouped_order(
    value: Value, shape: tuple[int, ...], groups: list[tuple[list[int], list[int]]]
) -> tuple[int, ...]:
    """Return the stored order if each group lies together in it, else the logical one."""
    order = whole_order(value, shape)
    long = [a for a in order if any(a in ins for ins, _ in groups)]
    for ins, _ in groups:
        at = long.index(ins[0])
        if long[at : at + len(ins)] != ins:
            return natural(shape)
    return order


RULES = {
    "broadcast_in_dim": _broadcast_in_dim,
    "expand_dims": expand_dims,
    "reshape": _reshape,
    "squeeze": squeeze,
    "transpose": _transpose,
}
