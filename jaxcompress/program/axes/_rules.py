# SPDX-License-Identifier: Apache-2.0
"""Which axes of operands and results are the same, for each primitive."""

from __future__ import annotations

from collections.abc import Sequence

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node
from ..trace._primitives import COLLECTIVES, ELEMENTWISE
from ._axis import Axis, freeze, frozen, product, unify
from ._layout_rules import LAYOUT_RULES
from ._rule import Axes, Rule, aligned, at, frozen_results, misfit, result_shape


def link(node: Node, ins: list[Axes]) -> list[Axes]:
    """Unify axes of an equation's operands, and return those of its results."""
    rule = RULES.get(node.primitive, _unknown)
    return rule(node, ins)


def _unknown(node: Node, ins: list[Axes]) -> list[Axes]:
    return frozen_results(node, ins, "an operation without a rule")


def _elementwise(node: Node, ins: list[Axes]) -> list[Axes]:
    return [aligned(node, _compat.shape(out), ins) for out in node.eqn.outvars]


def _one_to_one(node: Node, ins: list[Axes]) -> list[Axes]:
    return [list(axes) for axes in ins]


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
    result[axis] = frozen(result_shape(node)[axis], reason)
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
            for i, n in enumerate(result_shape(node))
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
        for axis, n, is_moving in zip(axes, result_shape(node), moves, strict=True)
    ]
    return [result for _ in range(count)]


def _dot(node: Node, ins: list[Axes]) -> list[Axes]:
    (lhs, rhs), axes = ins, _compat.dot_axes(node.eqn)
    for i, j in zip(
        (*axes.lhs, *axes.lhs_batch), (*axes.rhs, *axes.rhs_batch), strict=True
    ):
        unify(lhs[i], rhs[j], misfit(node))
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
        unify(features, inputs, misfit(node))
    else:
        groups = Axis(conv.groups)
        unify(features, product([groups, inputs]), misfit(node))
        each = Axis(outputs.size // conv.groups)
        unify(outputs, product([groups, each]), misfit(node))
    batch, feature, *space = _compat_shapes.result_axes(node.eqn)
    shape = result_shape(node)
    result = [Axis(1)] * len(shape)
    result[batch], result[feature] = lhs[conv.lhs_spec[0]], outputs
    for i in space:
        result[i] = frozen(shape[i], reason)
    return [result]


def _random_bits(node: Node, ins: list[Axes]) -> list[Axes]:
    for axis in ins[0]:
        freeze(axis, at(node, "random keys"))
    shape = result_shape(node)
    keys = ins[0]
    return [[*keys, *(Axis(n) for n in shape[len(keys) :])]]


def _no_result(node: Node, ins: list[Axes]) -> list[Axes]:
    return frozen_results(node, ins, "its values leave the program")


RULES: dict[str, Rule] = {
    **LAYOUT_RULES,
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
    "conv_general_dilated": _conv,
    "debug_callback": _no_result,
    "dot_general": _dot,
    "iota": _iota,
    "random_bits": _random_bits,
    "top_k": _top_k,
}
