# SPDX-License-Identifier: Apache-2.0
"""Softmax and GELU, as they look in JAX."""

from __future__ import annotations

import math

from ...program.dataflow import Atom, Operation
from ._match import Match, Matcher


def _shifted(
    m: Matcher, op: Operation | None
) -> tuple[Atom, int, list[Operation]] | None:
    """Match ``x - max(x)`` along one axis."""
    if op is None or op.primitive != "sub":
        return None
    found = m.kept(op.ins[1], "reduce_max")
    if found is None or found[0].ins[0] is not op.ins[0]:
        return None
    axes = found[0].params["axes"]
    return None if len(axes) != 1 else (op.ins[0], int(axes[0]), [op, *found[1]])


def softmax(m: Matcher, op: Operation) -> Match | None:
    """``exp(x - max(x)) / sum(exp(x - max(x)))``."""
    if op.primitive != "div":
        return None
    top, total = m.op(op.ins[0], "exp"), m.kept(op.ins[1], "reduce_sum")
    if top is None or total is None or total[0].ins[0] is not top.outs[0]:
        return None
    found = _shifted(m, m.op(top.ins[0], "sub"))
    if found is None or tuple(total[0].params["axes"]) != (found[1],):
        return None
    new = Operation("softmax", {"axis": found[1]}, [found[0]], op.outs, op.scope)
    return Match([new], [top, *total[1], *found[2]])


def log_softmax(m: Matcher, op: Operation) -> Match | None:
    """``x - max(x) - log(sum(exp(x - max(x))))``."""
    if op.primitive != "sub":
        return None
    shift = m.op(op.ins[0], "sub")
    found, log = _shifted(m, shift), m.op(op.ins[1], "log")
    if found is None or log is None or shift is None:
        return None
    total = m.kept(log.ins[0], "reduce_sum")
    if total is None or tuple(total[0].params["axes"]) != (found[1],):
        return None
    top = m.op(total[0].ins[0], "exp")
    if top is None or top.ins[0] is not shift.outs[0]:
        return None
    new = Operation("log_softmax", {"axis": found[1]}, [found[0]], op.outs, op.scope)
    return Match([new], [log, top, *total[1], *found[2]])


def gelu(m: Matcher, op: Operation) -> Match | None:
    """Both forms of ``jax.nn.gelu``."""
    if op.primitive != "mul" or not m.floats(op):
        return None
    for left, right in (op.ins, op.ins[::-1]):
        for find, how in ((_gelu_erf, False), (_gelu_tanh, True)):
            found = find(m, left, right)
            if found is not None:
                x, inside = found
                params = {"approximate": how}
                return Match(
                    [Operation("gelu", params, [x], op.outs, op.scope)], inside
                )
    return None


def _gelu_erf(
    m: Matcher, left: Atom, right: Atom
) -> tuple[Atom, list[Operation]] | None:
    """``x / 2 * erfc(-x / sqrt(2))``."""
    half, tail = m.times(left, 0.5), m.op(right, "erfc")
    if half is None or tail is None:
        return None
    scaled = m.times(tail.ins[0], math.sqrt(0.5))
    minus = m.op(scaled[0], "neg") if scaled else None
    if scaled is None or minus is None or minus.ins[0] is not half[0]:
        return None
    return half[0], [half[1], tail, scaled[1], minus]


def _gelu_tanh(m: Matcher, x: Atom, right: Atom) -> tuple[Atom, list[Operation]] | None:
    """``x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``."""
    half = m.times(right, 0.5)
    one = m.plus(half[0], 1) if half else None
    tanh = m.op(one[0], "tanh") if one else None
    outer = m.times(tanh.ins[0], math.sqrt(2 / math.pi)) if tanh else None
    total = m.op(outer[0], "add") if outer else None
    if half is None or one is None or tanh is None or outer is None or total is None:
        return None
    for same, rest in (total.ins, total.ins[::-1]):
        cubic = m.times(rest, 0.044715)
        cube = m.op(cubic[0], "integer_pow") if cubic else None
        if same is x and cubic and cube and cube.params["y"] == 3 and cube.ins[0] is x:
            return x, [half[1], one[1], tanh, outer[1], total, cubic[1], cube]
    return None
