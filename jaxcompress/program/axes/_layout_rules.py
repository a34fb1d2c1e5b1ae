# SPDX-License-Identifier: Apache-2.0
"""Rules of primitives that move, join, cut and select."""

from __future__ import annotations

from collections.abc import Sequence

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node
from ._axis import (
    Axis,
    freeze,
    frozen,
    product,
    regroup,
    sequence,
    split_sequence,
    unify,
)
from ._rule import Axes, Rule, aligned, at, frozen_results, misfit, result_shape


def _moved(node: Node, ins: list[Axes]) -> list[Axes]:
    places, shape = _compat.places(node.eqn), result_shape(node)
    return [
        [
            Axis(n) if i is None or ins[0][i].size != n else ins[0][i]
            for i, n in zip(places, shape, strict=True)
        ]
    ]


def _reshape(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "a reshape that divides the axis unevenly")
    return [regroup(ins[0], result_shape(node), reason)]


def _concatenate(node: Node, ins: list[Axes]) -> list[Axes]:
    axis, _ = _compat.joined(node.eqn)
    others = [[*axes[:axis], Axis(1), *axes[axis + 1 :]] for axes in ins]
    shape = list(result_shape(node))
    shape[axis] = 1
    result = aligned(node, shape, others)
    result[axis] = sequence([axes[axis] for axes in ins])
    return [result]


def _stack(node: Node, ins: list[Axes]) -> list[Axes]:
    axis, _ = _compat.joined(node.eqn)
    result = aligned(node, _compat.shape(node.eqn.invars[0]), ins)
    result.insert(axis, frozen(len(ins), at(node, "stacked values")))
    return [result]


def _split(node: Node, ins: list[Axes]) -> list[Axes]:
    axis, sizes = _compat_shapes.split_sizes(node.eqn)
    rest, results = ins[0][axis], []
    for size in map(int, sizes):
        cut = split_sequence(rest, size)
        if cut is None:
            return frozen_results(node, ins, "divides the axis unevenly")
        results.append([*ins[0][:axis], cut[0], *ins[0][axis + 1 :]])
        rest = cut[1]
    return results


def _slice(node: Node, ins: list[Axes]) -> list[Axes]:
    result = []
    for i, axis in enumerate(ins[0]):
        window = _compat.window(node.eqn, i)
        part = _cut(axis, window)
        if part is None:
            reason = at(node, "a strided or uneven slice")
            freeze(axis, reason)
            part = frozen(len(window), reason)
        result.append(part)
    return [result]


def _cut(axis: Axis, window: range) -> Axis | None:
    if window == range(axis.size):
        return axis
    if window.step != 1:
        return None
    before = split_sequence(axis, window.start)
    inside = before and split_sequence(before[1], len(window))
    return inside and inside[0]


def _pad(node: Node, ins: list[Axes]) -> list[Axes]:
    result = []
    for axis, pad in zip(ins[0], _compat_shapes.padding(node.eqn), strict=True):
        if pad.interior or pad.low < 0 or pad.high < 0:
            reason = at(node, "interior or negative padding")
            freeze(axis, reason)
            size = axis.size + pad.low + pad.high
            result.append(frozen(size + pad.interior * (axis.size - 1), reason))
        elif pad.low or pad.high:
            result.append(sequence([Axis(pad.low), axis, Axis(pad.high)]))
        else:
            result.append(axis)
    return [result]


def _tile(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "a repeated value")
    return [
        [
            product([frozen(n // max(axis.size, 1), reason), axis])
            for axis, n in zip(ins[0], result_shape(node), strict=True)
        ]
    ]


def _dynamic_slice(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "indices are computed while the network runs")
    result = []
    for axis, n in zip(ins[0], result_shape(node), strict=True):
        if axis.size != n:
            freeze(axis, reason)
        result.append(axis if axis.size == n else frozen(n, reason))
    return [result]


def _dynamic_update_slice(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "indices are computed while the network runs")
    for axis, update in zip(ins[0], ins[1], strict=True):
        if axis.size == update.size:
            unify(axis, update, misfit(node))
        else:
            freeze(axis, reason)
            freeze(update, reason)
    return [list(ins[0])]


def _gather(node: Node, ins: list[Axes]) -> list[Axes]:
    layout = _compat_shapes.gathering(node.eqn)
    sizes = _compat.slice_sizes(node.eqn)
    result = _slices(node, ins, layout, sizes, result_shape(node))
    for i, j in layout.batch:
        unify(ins[0][i], ins[1][j], misfit(node))
    return [result]


def _slices(
    node: Node,
    ins: list[Axes],
    layout: _compat_shapes.Indexing,
    sizes: Sequence[int],
    shape: Sequence[int],
) -> Axes:
    """Return the axes of the slices that indices select from an operand."""
    operand, indices = ins[0], ins[1]
    reason = at(node, "indices select along it")
    freeze(indices[layout.vector], reason)
    result = [
        frozen(n, reason) if j is None else indices[j]
        for j, n in zip(layout.indices, shape, strict=True)
    ]
    batched = {i for i, _ in layout.batch}
    for i, axis in enumerate(operand):
        place = layout.window[i]
        is_whole = sizes[i] == axis.size and i not in layout.indexed
        if place is not None and is_whole:
            result[place] = axis
        elif i not in batched:
            freeze(axis, reason)
    return result


def _scatter(node: Node, ins: list[Axes]) -> list[Axes]:
    layout = _compat_shapes.scattering(node.eqn)
    operand, indices, updates = ins
    sizes = [1 if j is None else updates[j].size for j in layout.window]
    shape = [axis.size for axis in updates]
    wanted = _slices(node, ins, layout, sizes, shape)
    for axis, update in zip(wanted, updates, strict=True):
        unify(axis, update, misfit(node))
    for i, j in layout.batch:
        unify(operand[i], indices[j], misfit(node))
    return [list(operand)]


LAYOUT_RULES: dict[str, Rule] = {
    **dict.fromkeys(["transpose", "squeeze", "broadcast_in_dim"], _moved),
    **dict.fromkeys(
        [
            "scatter",
            "scatter-add",
            "scatter-max",
            "scatter-min",
            "scatter-mul",
            "scatter-sub",
        ],
        _scatter,
    ),
    "concatenate": _concatenate,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "pad": _pad,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "tile": _tile,
}
