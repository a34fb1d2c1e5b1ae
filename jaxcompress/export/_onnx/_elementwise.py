# SPDX-License-Identifier: Apache-2.0
"""Elementwise operations, in the order in which their operands are stored."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ...program.dataflow import Operation
from ._build import Build, Unsupported, carrier
from ._value import aligned, common_order, constant

Make = Callable[..., str]

_PLAIN = {
    "abs": "Abs",
    "acos": "Acos",
    "acosh": "Acosh",
    "asin": "Asin",
    "asinh": "Asinh",
    "atan": "Atan",
    "atanh": "Atanh",
    "ceil": "Ceil",
    "cos": "Cos",
    "cosh": "Cosh",
    "erf": "Erf",
    "exp": "Exp",
    "floor": "Floor",
    "log": "Log",
    "logistic": "Sigmoid",
    "neg": "Neg",
    "relu": "Relu",
    "sign": "Sign",
    "sin": "Sin",
    "sinh": "Sinh",
    "sqrt": "Sqrt",
    "tan": "Tan",
    "tanh": "Tanh",
    "add": "Add",
    "add_any": "Add",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
}
_ON_BOOLS = {"and": "And", "or": "Or", "xor": "Xor", "not": "Not"}
_ON_INTEGERS = {
    "and": "BitwiseAnd",
    "or": "BitwiseOr",
    "xor": "BitwiseXor",
    "not": "BitwiseNot",
}
_IDENTITY = (
    "copy",
    "copy_p",
    "name",
    "optimization_barrier",
    "pvary",
    "reduce_precision",
    "sharding_constraint",
    "stop_gradient",
)
# Narrow integers are computed in wider ones; these may leave the narrow range.
_WRAPS = {"add", "add_any", "integer_pow", "mul", "neg", "pow", "square", "sub"}


def elementwise(b: Build, op: Operation, make: Make) -> None:
    """Write one result that ``make(*names)`` computes of the aligned operands."""
    (out,) = op.outs
    values = [b.read(atom) for atom in op.ins]
    if any(v.array is not None and out.batch & set(v.order) for v in values):
        raise Unsupported("a constant with one row for each example of the batch")
    # A scalar operand of a larger result is stored without axes.
    order = common_order(values, out.shape)
    names = [aligned(b, value, out.shape, order) for value in values]
    name = make(*names)
    narrow = np.dtype(out.dtype)
    if op.primitive in _WRAPS and narrow != carrier(narrow) and narrow.kind in "iu":
        name = b.cast(b.cast(name, narrow), carrier(narrow))
    b.define(out, name, order)


def _plain(b: Build, op: Operation) -> None:
    kind = _PLAIN[op.primitive]
    elementwise(b, op, lambda *names: b.node(kind, list(names)))


def _logical(b: Build, op: Operation) -> None:
    kinds = _ON_BOOLS if op.ins[0].dtype == np.bool_ else _ON_INTEGERS
    elementwise(b, op, lambda *names: b.node(kinds[op.primitive], list(names)))


def _identity(b: Build, op: Operation) -> None:
    for atom, out in zip(op.ins, op.outs, strict=True):
        value = b.read(atom)
        if value.array is not None:
            name = aligned(b, value, out.shape, value.order)
            b.define(out, name, value.order)
        else:
            b.define(out, value.name, value.order, value.grid)


def _rem(b: Build, op: Operation) -> None:
    elementwise(b, op, lambda *names: b.node("Mod", list(names), fmod=1))


def _ne(b: Build, op: Operation) -> None:
    elementwise(b, op, lambda *x: b.node("Not", [b.node("Equal", list(x))]))


def _square(b: Build, op: Operation) -> None:
    elementwise(b, op, lambda x: b.node("Mul", [x, x]))


def _rsqrt(b: Build, op: Operation) -> None:
    elementwise(b, op, lambda x: b.node("Reciprocal", [b.node("Sqrt", [x])]))


def _cbrt(b: Build, op: Operation) -> None:
    third = b.number(1 / 3, carrier(op.outs[0].dtype))
    elementwise(
        b,
        op,
        lambda x: b.node(
            "Mul",
            [b.node("Sign", [x]), b.node("Pow", [b.node("Abs", [x]), third])],
        ),
    )


def _integer_pow(b: Build, op: Operation) -> None:
    y, dtype = op.params["y"], carrier(op.outs[0].dtype)

    def make(x: str) -> str:
        if y == 2:
            return b.node("Mul", [x, x])
        if y == -1:
            return b.node("Reciprocal", [x])
        return b.node("Pow", [x, b.number(y, dtype)])

    elementwise(b, op, make)


def _exp2(b: Build, op: Operation) -> None:
    two = b.number(2, carrier(op.outs[0].dtype))
    elementwise(b, op, lambda x: b.node("Pow", [two, x]))


def _log1p(b: Build, op: Operation) -> None:
    one = b.number(1, carrier(op.outs[0].dtype))

    def make(x: str) -> str:
        # log(u) * x / (u - 1) is as exact as x, where log(u) alone is not.
        u = b.node("Add", [x, one])
        log = b.node("Log", [u])
        ratio = b.node("Div", [x, b.node("Sub", [u, one])])
        corrected = b.node("Mul", [log, ratio])
        tiny, huge = b.node("Equal", [u, one]), b.node("Equal", [u, x])
        corrected = b.node("Where", [tiny, x, corrected])
        return b.node("Where", [huge, log, corrected])

    elementwise(b, op, make)


def _expm1(b: Build, op: Operation) -> None:
    dtype = carrier(op.outs[0].dtype)
    half, one = b.number(0.5, dtype), b.number(1, dtype)

    def make(x: str) -> str:
        # tanh(x / 2) == (exp(x) - 1) / (exp(x) + 1), without the cancellation.
        tanh = b.node("Tanh", [b.node("Mul", [x, half])])
        return b.node("Mul", [tanh, b.node("Add", [b.node("Exp", [x]), one])])

    elementwise(b, op, make)


def _erfc(b: Build, op: Operation) -> None:
    one = b.number(1, carrier(op.outs[0].dtype))
    elementwise(b, op, lambda x: b.node("Sub", [one, b.node("Erf", [x])]))


def _round(b: Build, op: Operation) -> None:
    half = b.number(0.5, carrier(op.outs[0].dtype))

    def make(x: str) -> str:
        if int(op.params["rounding_method"]) == 1:
            return b.node("Round", [x])
        away = b.node("Floor", [b.node("Add", [b.node("Abs", [x]), half])])
        return b.node("Mul", [b.node("Sign", [x]), away])

    elementwise(b, op, make)


def _is_finite(b: Build, op: Operation) -> None:
    elementwise(
        b,
        op,
        lambda x: b.node(
            "Not", [b.node("Or", [b.node("IsInf", [x]), b.node("IsNaN", [x])])]
        ),
    )


def _select(b: Build, op: Operation) -> None:
    which = op.ins[0]
    boolean = op.outs[0].dtype == np.bool_

    def make(index: str, *cases: str) -> str:
        if boolean:  # runtimes have no `Where` of booleans
            cases = tuple(b.cast(case, np.int32) for case in cases)
        name = cases[0]
        for i, case in enumerate(cases[1:], 1):
            chosen = index
            if which.dtype != np.bool_:
                chosen = b.node("Equal", [index, b.number(i, carrier(which.dtype))])
            name = b.node("Where", [chosen, case, name])
        return b.cast(name, np.bool_) if boolean else name

    elementwise(b, op, make)


def _clamp(b: Build, op: Operation) -> None:
    low, x, high = op.ins
    bounds = [b.read(atom) for atom in (low, high)]
    if all(v.array is not None and v.order == () for v in bounds):
        small, big = (b.constant(v.array) for v in bounds)  # type: ignore[arg-type]
        one = Operation("clamp", {}, [x], op.outs, op.scope)
        return elementwise(b, one, lambda x: b.node("Clip", [x, small, big]))
    elementwise(
        b, op, lambda low, x, high: b.node("Min", [b.node("Max", [x, low]), high])
    )


def _convert(b: Build, op: Operation) -> None:
    (x,), (out,) = op.ins, op.outs
    source, target = carrier(x.dtype), carrier(out.dtype)
    narrow = np.dtype(out.dtype)

    def make(x: str) -> str:
        if narrow.kind in "iu" and narrow != target:
            return b.cast(b.cast(x, narrow), target)
        return x if source == target else b.cast(x, target)

    elementwise(b, op, make)


def _gelu(b: Build, op: Operation) -> None:
    how = "tanh" if op.params["approximate"] else "none"
    if b.opset >= 20:
        elementwise(b, op, lambda x: b.node("Gelu", [x], approximate=how))
        return
    raise Unsupported("opset below 20")


def is_scalar(atom: object) -> bool:
    """Return whether an operand is one number, repeated."""
    value = getattr(atom, "value", None)
    return value is not None and constant(np.asarray(value)).order == ()


def scalar(atom: object) -> float:
    """Return the number that a constant repeats; NaN for anything else."""
    if not is_scalar(atom):
        return math.nan
    return float(np.asarray(atom.value).reshape(-1)[0])  # type: ignore[attr-defined]


RULES = {
    **dict.fromkeys(_PLAIN, _plain),
    **dict.fromkeys(_ON_BOOLS, _logical),
    **dict.fromkeys(_IDENTITY, _identity),
    "cbrt": _cbrt,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "erfc": _erfc,
    "exp2": _exp2,
    "expm1": _expm1,
    "gelu": _gelu,
    "integer_pow": _integer_pow,
    "is_finite": _is_finite,
    "log1p": _log1p,
    "ne": _ne,
    "rem": _rem,
    "round": _round,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "square": _square,
}
