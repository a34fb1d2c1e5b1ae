# SPDX-License-Identifier: Apache-2.0
"""Operations that stand for a pattern: softmax and layer norm."""

from __future__ import annotations

from ...program.dataflow import Operation
from ._build import Build
from ._value import full, stored, whole_order


def _softmax(b: Build, op: Operation) -> None:
    x, axis = op.ins[0], op.params["axis"]
    value = b.read(x)
    order: list = list(stored(value, x.shape))
    name = value.name
    if value.array is not None or axis not in order:
        order = list(whole_order(value, x.shape))
        name = full(b, value, x.shape, tuple(order))
    kind = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}[op.primitive]
    name = b.node(kind, [name], axis=order.index(axis))
    b.define(op.outs[0], name, order)


def _layer_norm(b: Build, op: Operation) -> None:
    x, *vectors = op.ins
    value, (axis,) = b.read(x), op.params["axes"]
    kept = [a for a in whole_order(value, x.shape) if a != axis]
    order = (*kept, axis)
    ins = [full(b, value, x.shape, order)]
    ins += [full(b, b.read(vector), vector.shape, (0,)) for vector in vectors]
    name = b.node(
        "LayerNormalization", ins, axis=len(order) - 1, epsilon=op.params["epsilon"]
    )
    b.define(op.outs[0], name, order)


RULES = {"layer_norm": _layer_norm, "log_softmax": _softmax, "softmax": _softmax}
