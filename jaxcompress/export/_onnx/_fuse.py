# SPDX-License-Identifier: Apache-2.0
"""Patterns of operations that ONNX has one operator for."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from ...program.dataflow import Atom, Constant, Graph, Operation
from ._elementwise import scalar
from ._match import Match, Matcher
from ._match_norms import layer_norm
from ._match_products import bias
from ._match_softmax import gelu, log_softmax, softmax

_SAME = (
    "copy",
    "copy_p",
    "device_put",
    "name",
    "optimization_barrier",
    "pvary",
    "sharding_constraint",
    "stop_gradient",
)


def fuse(graph: Graph, opset: int) -> Graph:
    """Return a graph with operators of ONNX in place of patterns.

    A pattern is taken if its inner values have no other reader.
    """
    graph = _without_copies(graph)
    matcher = Matcher(graph)
    patterns = [layer_norm, log_softmax, softmax, bias, clip, relu, mean, average]
    if opset >= 20:
        patterns.append(gelu)
    gone: set[int] = set()
    operations: list[Operation] = []
    for operation in reversed(graph.operations):
        if id(operation) in gone:
            continue
        for pattern in patterns:
            match = pattern(matcher, operation)
            if match is not None and matcher.inner(operation, match.inside, gone):
                gone.update(id(inside) for inside in match.inside)
                operations.extend(reversed(match.operations))
                break
        else:
            operations.append(operation)
    return dataclasses.replace(graph, operations=operations[::-1])


def _without_copies(graph: Graph) -> Graph:
    """Leave out operations that return their operand."""
    same: dict[int, Atom] = {}

    def resolve(atoms: Iterable[Atom]) -> list[Atom]:
        return [same.get(id(atom), atom) for atom in atoms]

    operations = []
    for operation in graph.operations:
        ins = resolve(operation.ins)
        source = _returns(operation, ins)
        if source is None:
            operations.append(dataclasses.replace(operation, ins=ins))
        else:
            same.update(
                (id(out), atom)
                for out, atom in zip(operation.outs, source, strict=True)
            )
    return dataclasses.replace(
        graph, operations=operations, outputs=resolve(graph.outputs)
    )


def _returns(operation: Operation, ins: list[Atom]) -> list[Atom] | None:
    """Return what an operation returns, if it only passes on its operands."""
    if operation.primitive in _SAME:
        return ins
    if operation.primitive == "convert_element_type":
        same = ins[0].dtype == operation.outs[0].dtype
        return ins if same else None
    if operation.primitive == "select_n" and not np.isnan(scalar(ins[0])):
        case = ins[1 + int(scalar(ins[0]))]
        return [case] if case.shape == operation.outs[0].shape else None
    if operation.primitive == "max":
        for bound, x in (ins, ins[::-1]):
            if scalar(bound) == -np.inf and not isinstance(x, Constant):
                return [x]
    return None


def relu(m: Matcher, op: Operation) -> Match | None:
    """``max(x, 0)``."""
    if op.primitive != "max" or not m.floats(op):
        return None
    x, bound = m.with_scalar(op)
    if x is None or bound != 0:
        return None
    return Match([Operation("relu", {}, [x], op.outs, op.scope)], [])


def clip(m: Matcher, op: Operation) -> Match | None:
    """``min(max(x, low), high)`` and the other way round."""
    inner = {"min": "max", "max": "min"}.get(op.primitive)
    if inner is None or not m.floats(op):
        return None
    y, outer_bound = m.with_scalar(op)
    inside = m.op(y, inner)
    if inside is None:
        return None
    x, inner_bound = m.with_scalar(inside)
    if x is None:
        return None
    low, high = inner_bound, outer_bound
    if op.primitive == "max":
        low, high = high, low
    if not low <= high:
        return None
    dtype = op.outs[0].dtype
    ins = [Constant(np.asarray(low, dtype)), x, Constant(np.asarray(high, dtype))]
    return Match([Operation("clamp", {}, ins, op.outs, op.scope)], [inside])


def mean(m: Matcher, op: Operation) -> Match | None:
    """``sum(x) / n``."""
    found = m.divided(op, "reduce_sum")
    if found is None:
        return None
    summed, number = found
    count = np.prod([summed.ins[0].shape[a] for a in summed.params["axes"]])
    if not np.isclose(number, count, rtol=1e-6):
        return None
    params = {"axes": summed.params["axes"]}
    return Match(
        [Operation("reduce_mean", params, summed.ins, op.outs, op.scope)], [summed]
    )


def average(m: Matcher, op: Operation) -> Match | None:
    """Sums of windows, divided by their size."""
    found = m.divided(op, "reduce_window_sum")
    if found is None:
        return None
    summed, number = found
    if not np.isclose(number, np.prod(summed.params["window_dimensions"]), rtol=1e-6):
        return None
    params = {**summed.params, "average": True}
    return Match(
        [Operation("reduce_window_sum", params, summed.ins, op.outs, op.scope)],
        [summed],
    )
