# SPDX-License-Identifier: Apache-2.0
"""Axes that must be pruned together: a union-find whose elements can be refined.

Every axis of every value of a program is an ``Axis``. Elementwise operations, products and
norms unify axes. A reshape says that an axis is a product of others, a concatenation that
it is a sequence of others. Both refine the axis in place, so they also hold for every
value that shared it before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class Axis:
    """One axis, up to the axes that it was unified with.

    Attributes:
      size: number of indices.
      kind: None if the axis is atomic; ``"product"`` if its indices are those of its parts
        in row-major order, ``"sequence"`` if they follow one another.
      parts: the axes that it consists of.
      reasons: why an atomic axis cannot be pruned; empty if it can.
    """

    __slots__ = ("_same", "kind", "parts", "reasons", "size")

    def __init__(self, size: int, kind: str | None = None, parts: Sequence[Axis] = ()):
        self.size = size
        self.kind = kind
        self.parts = list(parts)
        self.reasons: dict[str, None] = {}
        self._same: Axis | None = None

    def __repr__(self) -> str:
        axis = find(self)
        sign = {"product": "*", "sequence": "+"}.get(axis.kind or "", "")
        parts = sign.join(map(repr, axis.parts))
        return f"({parts})" if axis.kind else f"{axis.size}"


def find(axis: Axis) -> Axis:
    """Return the representative of an axis."""
    root = axis
    while root._same is not None:
        root = root._same
    while axis._same is not None:
        axis._same, axis = root, axis._same
    return root


def product(parts: Sequence[Axis]) -> Axis:
    """Return the axis that several axes form when a reshape merges them."""
    parts = [p for p in parts if p.size != 1]
    if len(parts) < 2:
        return parts[0] if parts else Axis(1)
    return Axis(int(np.prod([p.size for p in parts], dtype=np.int64)), "product", parts)


def sequence(parts: Sequence[Axis]) -> Axis:
    """Return the axis that several axes form when they are concatenated."""
    parts = [p for p in parts if p.size]
    if len(parts) < 2:
        return parts[0] if parts else Axis(0)
    return Axis(sum(p.size for p in parts), "sequence", parts)


def factors(axis: Axis) -> list[Axis]:
    """Return the factors of an axis, outermost first; axes of size 1 have none."""
    axis = find(axis)
    if axis.size == 1:
        return []
    if axis.kind != "product":
        return [axis]
    return [f for part in axis.parts for f in factors(part)]


def pieces(axis: Axis) -> list[Axis]:
    """Return the axes that follow one another along an axis."""
    axis = find(axis)
    if axis.kind != "sequence":
        return [axis]
    return [p for part in axis.parts for p in pieces(part)]


def atoms(axis: Axis) -> Iterator[Axis]:
    """Iterate over the atomic axes of an axis, with repetitions."""
    axis = find(axis)
    if axis.kind is None:
        yield axis
    for part in axis.parts:
        yield from atoms(part)


def indices(axis: Axis) -> list[tuple[Axis, np.ndarray]]:
    """Return the atoms of an axis, each with its index at every position.

    Args:
      axis: the axis.

    Returns:
      Pairs of an atom and int [size]; -1 where the axis does not contain the atom.
    """
    parts = pieces(axis)
    if len(parts) > 1:
        result, start = [], 0
        for part in parts:
            for atom, index in indices(part):
                whole = np.full(axis.size, -1)
                whole[start : start + part.size] = index
                result.append((atom, whole))
            start += part.size
        return result
    parts = factors(axis)
    if len(parts) > 1:
        grid = np.indices([part.size for part in parts]).reshape(len(parts), -1)
        return [
            (atom, index[places])
            for part, places in zip(parts, grid, strict=True)
            for atom, index in indices(part)
        ]
    return [(atom, np.arange(atom.size)) for atom in atoms(axis)]


def freeze(axis: Axis, reason: str) -> None:
    """Record why an axis cannot be pruned."""
    for atom in atoms(axis):
        atom.reasons.setdefault(reason)


def unify(a: Axis, b: Axis, reason: str) -> None:
    """Demand that two axes keep the same indices.

    Args:
      a: an axis.
      b: an axis of the same size.
      reason: why both are frozen if their parts do not fit together.
    """
    if a.size == b.size == 1:
        return
    if a.size != b.size or not _merge(a, b):
        freeze(a, reason)
        freeze(b, reason)


def _merge(a: Axis, b: Axis) -> bool:
    """Unify two axes; False if their parts do not fit together."""
    a, b = find(a), find(b)
    if a is b:
        return True
    if a.kind is None or b.kind is None:
        _alias(a, b) if a.kind is None else _alias(b, a)
        return True
    if a.kind == b.kind == "sequence":
        fits = _align(pieces(a), pieces(b), head=True)
    else:
        fits = _align(factors(a), factors(b), head=False)
    if fits and find(a) is not find(b):
        _alias(find(a), find(b))
    return fits


def _alias(a: Axis, b: Axis) -> None:
    for reason in a.reasons:
        freeze(b, reason)
    a._same = b


def _align(left: list[Axis], right: list[Axis], *, head: bool) -> bool:
    """Unify two lists of parts, cutting parts where the others end.

    Args:
      left: pieces of a sequence, or factors of a product.
      right: the same of the other axis.
      head: start at the first part, with pieces; else at the last, with factors.
    """
    end = 0 if head else -1
    while left and right:
        x, y = find(left.pop(end)), find(right.pop(end))
        rest = left
        if x.size < y.size:
            x, y, rest = y, x, right
        if x.size != y.size:
            cut = split_sequence(x, y.size) if head else split_product(x, y.size)
            if cut is None:
                return False
            x, other = cut if head else cut[::-1]
            rest.insert(0, other) if head else rest.append(other)
        if not _merge(x, y):
            return False
    return not left and not right


def split_product(axis: Axis, minor: int) -> tuple[Axis, Axis] | None:
    """Split an axis into an outer axis and a minor one of the given size.

    Returns:
      Both, or None if the axis cannot be split there.
    """
    axis = find(axis)
    if minor in (1, axis.size):
        one = Axis(1)
        return (axis, one) if minor == 1 else (one, axis)
    if axis.size % minor:
        return None
    if axis.kind == "product":
        return _split_factors(axis, minor)
    if axis.kind == "sequence":
        cuts = [split_product(part, minor) for part in pieces(axis)]
        whole = [cut for cut in cuts if cut is not None]
        last = whole[0][1] if len(whole) == len(cuts) else None
        if last is None or not all(_merge(cut[1], last) for cut in whole):
            return None
        return _refine(find(axis), "product", sequence([cut[0] for cut in whole]), last)
    return _refine(axis, "product", Axis(axis.size // minor), Axis(minor))


def _refine(axis: Axis, kind: str, first: Axis, second: Axis) -> tuple[Axis, Axis]:
    """Let an axis consist of two others, for every value that has it."""
    for reason in axis.reasons:
        freeze(first, reason)
        freeze(second, reason)
    axis.kind, axis.parts, axis.reasons = kind, [first, second], {}
    return first, second


def _split_factors(axis: Axis, minor: int) -> tuple[Axis, Axis] | None:
    left, taken, size = factors(axis), [], 1
    while size < minor:
        factor = left.pop()
        if minor % size:
            return None
        wanted = minor // size
        if factor.size > wanted:
            cut = split_product(factor, wanted)
            if cut is None:
                return None
            left.append(cut[0])
            factor = cut[1]
        taken.insert(0, factor)
        size *= factor.size
    return (product(left), product(taken)) if size == minor else None


def split_sequence(axis: Axis, first: int) -> tuple[Axis, Axis] | None:
    """Split an axis into its first indices and the others.

    Returns:
      Both, or None if the axis cannot be split there.
    """
    axis = find(axis)
    if first in (0, axis.size):
        none = Axis(0)
        return (none, axis) if first == 0 else (axis, none)
    if axis.kind == "sequence":
        before, after = [], pieces(axis)
        while first:
            part = after.pop(0)
            if part.size > first:
                cut = split_sequence(part, first)
                if cut is None:
                    return None
                part = cut[0]
                after.insert(0, cut[1])
            before.append(part)
            first -= part.size
        return sequence(before), sequence(after)
    if axis.kind == "product":
        outer, *inner = factors(axis)
        rest = product(inner)
        if first % rest.size:
            return None
        cut = split_sequence(outer, first // rest.size)
        if cut is None:
            return None
        return product([cut[0], rest]), product([cut[1], rest])
    return _refine(axis, "sequence", Axis(first), Axis(axis.size - first))


def regroup(axes: Sequence[Axis], sizes: Sequence[int], reason: str) -> list[Axis]:
    """Return the axes of a reshaped value.

    Args:
      axes: axes before.
      sizes: sizes after; their product is the same.
      reason: why the axes are frozen that cannot be split; the last ones may still fit.
    """
    if 0 in sizes:
        return [frozen(size, reason) for size in sizes]
    left = [f for axis in axes for f in factors(axis)]
    result: list[Axis] = []
    for i, size in reversed(list(enumerate(sizes))):
        cut = split_product(product(left), size) if left else None
        if size != 1 and cut is None:
            for axis in left:
                freeze(axis, reason)
            return [*(frozen(size, reason) for size in sizes[: i + 1]), *result]
        if size == 1 or cut is None:
            result.insert(0, Axis(1))
            continue
        left = factors(cut[0])
        result.insert(0, cut[1])
    return result


def frozen(size: int, reason: str) -> Axis:
    """Return a new axis that cannot be pruned."""
    axis = Axis(size)
    if size != 1:
        freeze(axis, reason)
    return axis
