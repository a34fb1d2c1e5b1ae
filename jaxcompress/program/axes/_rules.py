# SPDX-License-Identifier: Apache-2.0
"""Which axes of operands and results are the same, for each primitive."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node
from ..trace._primitives import COLLECTIVES, ELEMENTWISE
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

Axes = list[Axis]
Rule = Callable[[Node, list[Axes]], list[Axes]]
"""``(node, axes of operands) -> axes of results``."""

RANDOM_KEYS = {
    "random_fold_in", "random_seed", "random_split", "random_unwrap", "random_wrap",
}  # fmt: skip


def at(node: Node, text: str) -> str:
    """Return a reason that names the equation."""
    place = f" in {node.scope}" if node.scope else ""
    return f"{text} ({node.primitive}{place})"


def link(node: Node, ins: list[Axes]) -> list[Axes]:
    """Unify axes of an equation's operands, and return those of its results."""
    rule = RULES.get(node.primitive, _unknown)
    return rule(node, ins)


def _unknown(node: Node, ins: list[Axes]) -> list[Axes]:
    return _frozen(node, ins, "an operation without a rule")


def _frozen(node: Node, ins: list[Axes], text: str) -> list[Axes]:
    reason = at(node, text)
    for axes in ins:
        for axis in axes:
            freeze(axis, reason)
    return [[frozen(n, reason) for n in _compat.shape(out)] for out in node.eqn.outvars]


def _shape(node: Node) -> tuple[int, ...]:
    return _compat.shape(node.eqn.outvars[0])


def _misfit(node: Node) -> str:
    return at(node, "axes that are divided in different ways meet here")


def aligned(node: Node, shape: Sequence[int], operands: Sequence[Axes]) -> Axes:
    """Unify the axes of operands that have the result's rank; size 1 repeats."""
    result: list[Axis | None] = [None] * len(shape)
    for axes in operands:
        if len(axes) != len(shape):
            continue
        for i, axis in enumerate(axes):
            found = result[i]
            if axis.size != shape[i]:
                continue
            if found is None:
                result[i] = axis
            else:
                unify(found, axis, _misfit(node))
    return [
        frozen(n, at(node, "a repeated value")) if axis is None else axis
        for axis, n in zip(result, shape, strict=True)
    ]


def _elementwise(node: Node, ins: list[Axes]) -> list[Axes]:
    return [aligned(node, _compat.shape(out), ins) for out in node.eqn.outvars]


def _one_to_one(node: Node, ins: list[Axes]) -> list[Axes]:
    return [list(axes) for axes in ins]


def _moved(node: Node, ins: list[Axes]) -> list[Axes]:
    places, shape = _compat.places(node.eqn), _shape(node)
    return [
        [
            Axis(n) if i is None or ins[0][i].size != n else ins[0][i]
            for i, n in zip(places, shape, strict=True)
        ]
    ]


def _reshape(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "a reshape that divides the axis unevenly")
    return [regroup(ins[0], _shape(node), reason)]


def _ordered(node: Node, ins: list[Axes]) -> list[Axes]:
    """Along some axes, the order or the number of the indices matters."""
    ordered = _compat_shapes.ordered_axes(node.eqn)
    for axes in ins:
        for i in ordered & set(range(len(axes))):
            freeze(axes[i], at(node, "the order of the indices matters"))
    return _elementwise(node, ins)


def _top_k(node: Node, ins: list[Axes]) -> list[Axes]:
    _ordered(node, ins)
    reason = at(node, "the order of the indices matters")
    (axis,) = _compat_shapes.ordered_axes(node.eqn)
    result = list(ins[0])
    result[axis] = frozen(_shape(node)[axis], reason)
    return [result, result]


def _chosen(node: Node, ins: list[Axes]) -> list[Axes]:
    ordered = _compat_shapes.ordered_axes(node.eqn)
    for i in ordered:
        freeze(ins[0][i], at(node, "its indices are a result"))
    return [[axis for i, axis in enumerate(ins[0]) if i not in ordered]]


def _iota(node: Node, ins: list[Axes]) -> list[Axes]:
    ordered = _compat_shapes.ordered_axes(node.eqn)
    reason = at(node, "meets its own indices")
    return [
        [
            frozen(n, reason) if i in ordered else Axis(n)
            for i, n in enumerate(_shape(node))
        ]
    ]


def _reduce(node: Node, ins: list[Axes]) -> list[Axes]:
    reduced = _compat.reduced_axes(node.eqn)
    shape = _compat.shape(node.eqn.invars[0])
    axes = aligned(node, shape, ins[: len(node.eqn.outvars)])
    kept = [axis for i, axis in enumerate(axes) if i not in reduced]
    return [kept for _ in node.eqn.outvars]


def _window(node: Node, ins: list[Axes]) -> list[Axes]:
    moves = _compat_shapes.window_axes(node.eqn)
    count = len(node.eqn.outvars)
    reason = at(node, "a window moves along it")
    axes = aligned(node, _compat.shape(node.eqn.invars[0]), ins[:count])
    for axis, is_moving in zip(axes, moves, strict=True):
        if is_moving:
            freeze(axis, reason)
    result = [
        frozen(n, reason) if is_moving else axis
        for axis, n, is_moving in zip(axes, _shape(node), moves, strict=True)
    ]
    return [result for _ in range(count)]


def _dot(node: Node, ins: list[Axes]) -> list[Axes]:
    (lhs, rhs), axes = ins, _compat.dot_axes(node.eqn)
    for i, j in zip(
        (*axes.lhs, *axes.lhs_batch), (*axes.rhs, *axes.rhs_batch), strict=True
    ):
        unify(lhs[i], rhs[j], _misfit(node))
    free = [lhs[i] for i in _others(lhs, (*axes.lhs, *axes.lhs_batch))]
    free += [rhs[j] for j in _others(rhs, (*axes.rhs, *axes.rhs_batch))]
    return [[lhs[i] for i in axes.lhs_batch] + free]


def _others(axes: Axes, without: Sequence[int]) -> list[int]:
    return [i for i in range(len(axes)) if i not in without]


def _conv(node: Node, ins: list[Axes]) -> list[Axes]:
    (lhs, rhs), conv = ins, _compat.convolution(node.eqn)
    if conv.batch_groups != 1:
        return _unknown(node, ins)
    reason = at(node, "a position of a convolution")
    for i in conv.lhs_spec[2:]:
        freeze(lhs[i], reason)
    for i in conv.rhs_spec[2:]:
        freeze(rhs[i], reason)
    features, outputs = lhs[conv.lhs_spec[1]], rhs[conv.rhs_spec[0]]
    inputs = rhs[conv.rhs_spec[1]]
    if conv.groups == 1:
        unify(features, inputs, _misfit(node))
    else:
        groups = Axis(conv.groups)
        unify(features, product([groups, inputs]), _misfit(node))
        each = Axis(outputs.size // conv.groups)
        unify(outputs, product([groups, each]), _misfit(node))
    batch, feature, *space = _compat_shapes.result_axes(node.eqn)
    shape = _shape(node)
    result = [Axis(1)] * len(shape)
    result[batch], result[feature] = lhs[conv.lhs_spec[0]], outputs
    for i in space:
        result[i] = frozen(shape[i], reason)
    return [result]


def _concatenate(node: Node, ins: list[Axes]) -> list[Axes]:
    axis, _ = _compat.joined(node.eqn)
    others = [[*axes[:axis], Axis(1), *axes[axis + 1 :]] for axes in ins]
    shape = list(_shape(node))
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
            return _frozen(node, ins, "divides the axis unevenly")
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
            for axis, n in zip(ins[0], _shape(node), strict=True)
        ]
    ]


def _dynamic_slice(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "indices are computed while the network runs")
    result = []
    for axis, n in zip(ins[0], _shape(node), strict=True):
        if axis.size != n:
            freeze(axis, reason)
        result.append(axis if axis.size == n else frozen(n, reason))
    return [result]


def _dynamic_update_slice(node: Node, ins: list[Axes]) -> list[Axes]:
    reason = at(node, "indices are computed while the network runs")
    for axis, update in zip(ins[0], ins[1], strict=True):
        if axis.size == update.size:
            unify(axis, update, _misfit(node))
        else:
            freeze(axis, reason)
            freeze(update, reason)
    return [list(ins[0])]


def _gather(node: Node, ins: list[Axes]) -> list[Axes]:
    layout = _compat_shapes.gathering(node.eqn)
    sizes = _compat.slice_sizes(node.eqn)
    result = _slices(node, ins, layout, sizes, _shape(node))
    for i, j in layout.batch:
        unify(ins[0][i], ins[1][j], _misfit(node))
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
        unify(axis, update, _misfit(node))
    for i, j in layout.batch:
        unify(operand[i], indices[j], _misfit(node))
    return [list(operand)]


def _random_bits(node: Node, ins: list[Axes]) -> list[Axes]:
    for axis in ins[0]:
        freeze(axis, at(node, "random keys"))
    shape = _shape(node)
    keys = ins[0]
    return [[*keys, *(Axis(n) for n in shape[len(keys) :])]]


def _no_result(node: Node, ins: list[Axes]) -> list[Axes]:
    return _frozen(node, ins, "its values leave the program")


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE | COLLECTIVES, _elementwise),
    **dict.fromkeys(["real", "imag", "conj", "complex", "atan2"], _elementwise),
    **dict.fromkeys(
        [
            "convert_element_type",
            "copy",
            "copy_p",
            "device_put",
            "name",
            "pbroadcast",
            "pcast",
            "pvary",
            "reduce_precision",
            "sharding_constraint",
            "stop_gradient",
            "optimization_barrier",
            "reshard",
        ],
        _one_to_one,
    ),
    **dict.fromkeys(["transpose", "squeeze", "broadcast_in_dim"], _moved),
    **dict.fromkeys(
        ["sort", "rev", "cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"],
        _ordered,
    ),
    **dict.fromkeys(
        [
            "reduce_sum",
            "reduce_max",
            "reduce_min",
            "reduce_prod",
            "reduce_and",
            "reduce_or",
            "reduce_xor",
        ],
        _reduce,
    ),
    **dict.fromkeys(
        ["reduce_window_max", "reduce_window_min", "reduce_window_sum"], _window
    ),
    **dict.fromkeys(["argmax", "argmin"], _chosen),
    **dict.fromkeys(
        [
            "scatter",
            "scatter_add",
            "scatter-add",
            "scatter_mul",
            "scatter_max",
            "scatter_min",
        ],
        _scatter,
    ),
    "concatenate": _concatenate,
    "conv_general_dilated": _conv,
    "debug_callback": _no_result,
    "dot_general": _dot,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "iota": _iota,
    "pad": _pad,
    "random_bits": _random_bits,
    "reshape": _reshape,
    "slice": _slice,
    "split": _split,
    "stack": _stack,
    "tile": _tile,
    "top_k": _top_k,
}
