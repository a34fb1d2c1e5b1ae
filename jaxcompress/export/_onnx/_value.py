# SPDX-License-Identifier: Apache-2.0
"""Where a value is stored, and in which order of its axes.

A tensor of the graph has logical axes. What is stored may have them in another order,
with further axes of length 1, and without those along which it repeats. Moves of axes are
bookkeeping until a reader wants an order that it does not have.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ._build import Build

Order = tuple[int | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A stored value.

    Attributes:
      name: its name; "" for a constant that is written when its order is known.
      order: for each stored axis the logical axis, or None for one of length 1. The value
        repeats along logical axes that are not stored.
      batch: logical axes whose length grows with the batch.
      array: what is stored, for a constant.
      grid: names of scale and zero point, if the value was just rounded to codes.
    """

    name: str
    order: Order
    batch: frozenset[int] = frozenset()
    array: np.ndarray | None = None
    grid: tuple[str, str] | None = None


def constant(array: np.ndarray) -> Value:
    """Return a constant, without the axes along which it repeats."""
    order = []
    for axis, n in enumerate(array.shape):
        first = array.take([0], axis) if n else array
        if n == 1 or (n > 1 and _equal(array, first)):
            array = first
        else:
            order.append(axis)
    kept = array.reshape([array.shape[axis] for axis in order])
    return Value("", tuple(order), array=kept)


def _equal(array: np.ndarray, other: np.ndarray) -> bool:
    nan = (array != array) & (other != other)
    return bool(((array == other) | nan).all())


def stored(value: Value, shape: tuple[int, ...]) -> Order:
    """Return the order with None for every axis of length 1."""
    return tuple(
        a if a is not None and (shape[a] != 1 or a in value.batch) else None
        for a in value.order
    )


def arrange(b: Build, value: Value, shape: tuple[int, ...], order: Order) -> str:
    """Return the name of a value stored in an order; repeated axes have length 1."""
    have = stored(value, shape)
    want = tuple(a if a in have else None for a in order)
    kept_have, kept_want = _kept(have), _kept(want)
    assert set(kept_have) == set(kept_want), (have, order)
    if value.array is not None:
        moved = value.array.reshape([shape[a] for a in kept_have])
        moved = moved.transpose([kept_have.index(a) for a in kept_want])
        return b.constant(moved.reshape([1 if a is None else shape[a] for a in want]))
    name = value.name
    if have == want:
        return name
    if kept_have != kept_want:
        ones = [i for i, a in enumerate(have) if a is None]
        perm = []
        for a in want:
            if a is not None:
                perm.append(have.index(a))
            elif ones:
                perm.append(ones.pop(0))
        perm += ones
        have = tuple(have[i] for i in perm)
        name = b.node("Transpose", [name], perm=perm)
    return b.rounded(_with_ones(b, name, have, want), value.grid)


def _kept(order: Order) -> list[int]:
    return [a for a in order if a is not None]


def _with_ones(b: Build, name: str, have: Order, want: Order) -> str:
    """Add and remove axes of length 1."""
    extra, absent = [], []
    i = j = 0
    while i < len(have) or j < len(want):
        a = have[i] if i < len(have) else "end"
        w = want[j] if j < len(want) else "end"
        if a == w:
            i, j = i + 1, j + 1
        elif a is None:
            extra.append(i)
            i += 1
        else:
            absent.append(j)
            j += 1
    if extra:
        name = b.node("Squeeze", [name, b.integers(extra)])
    if absent:
        name = b.node("Unsqueeze", [name, b.integers(absent)])
    return name


def full(
    b: Build,
    value: Value,
    shape: tuple[int, ...],
    order: Order,
    batch: frozenset[int] = frozenset(),
) -> str:
    """Return the name of a value stored in an order, with every repetition."""
    have = stored(value, shape)
    grows = batch | value.batch
    repeated = {
        a for a in order if a is not None and a not in have and _long(a, shape, grows)
    }
    if value.array is not None and not repeated & grows:
        array = value.array.reshape([shape[a] for a in _kept(have)])
        at = [a for a in _kept(order) if a in have]
        array = array.transpose([_kept(have).index(a) for a in at])
        sizes = [1 if a is None else shape[a] for a in order]
        ones = [n if a in at else 1 for a, n in zip(order, sizes, strict=True)]
        array = array.reshape(ones)
        return b.constant(np.broadcast_to(array, sizes))
    name = arrange(b, value, shape, order)
    if repeated:
        sizes = [1 if a not in repeated or a is None else shape[a] for a in order]
        grow = [a in repeated and a in grows for a in order]
        name = b.node("Expand", [name, b.sizes(sizes, grow)])
        name = b.rounded(name, value.grid)
    return name


def _long(axis: int, shape: tuple[int, ...], grows: frozenset[int]) -> bool:
    return shape[axis] != 1 or axis in grows


def natural(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the logical order of all axes."""
    return tuple(range(len(shape)))


def whole_order(value: Value, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return an order of all axes, as near as possible to the stored one."""
    kept = _kept(stored(value, shape))
    missing = [a for a in range(len(shape)) if a not in kept]
    if kept == sorted(kept):
        return natural(shape)
    return (*kept, *missing)


def common_order(values: list[Value], shape: tuple[int, ...]) -> Order:
    """Return the order in which values of one shape meet at least expense."""
    orders = [stored(v, shape) for v in values if len(v.order) or v.array is None]
    axes = {a for order in orders for a in order if a is not None}

    def preference(entry: Any) -> tuple[int, int]:
        index, value = entry
        return len(_kept(stored(value, shape))), int(value.array is None)

    _, leader = max(enumerate(values), key=preference)
    order = stored(leader, shape)
    kept = _kept(order)
    extra = sorted(axes - set(kept))
    if not extra:
        return order
    if kept == sorted(kept):
        return tuple(a if a in axes else None for a in range(len(shape)))
    return (*kept, *extra)


def aligned(b: Build, value: Value, shape: tuple[int, ...], order: Order) -> str:
    """Return a name that broadcasts, by the rules of numpy, to an order."""
    have = stored(value, shape)
    if value.array is not None:
        at = [a for a in order if a in have]
        first = order.index(at[0]) if at else len(order)
        return arrange(b, value, shape, order[first:])
    if len(have) <= len(order):
        padded = (None,) * (len(order) - len(have)) + have
        if all(a is None or a == o for a, o in zip(padded, order, strict=True)):
            return value.name
    return arrange(b, value, shape, order)
