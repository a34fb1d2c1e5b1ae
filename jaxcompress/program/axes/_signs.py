# SPDX-License-Identifier: Apache-2.0
"""Where a masked network may divide by zero."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..trace import _compat_shapes
from ..trace._graph import Node, Value
from ._zero_keeping import IDENTITIES, MOVES, constant

IsZero = Callable[[Value], bool]
"""True if a value is known to be zero at the pruned indices."""

_KEEPS_SIGN = MOVES - {"pad"} | IDENTITIES | {
    "cbrt", "convert_element_type", "optimization_barrier", "reduce_max", "reduce_min",
    "reduce_prod", "reduce_sum", "reduce_window_max", "reduce_window_sum", "rsqrt", "sqrt",
    "stop_gradient",
}  # fmt: skip
_DEPTH = 16  # operations that are followed back


def pole(node: Node) -> Value | None:
    """Return the operand of a node at whose zeros the result may not be finite."""
    if node.primitive in ("div", "rem"):
        return node.ins[1]
    if node.primitive in ("acosh", "digamma", "lgamma", "log", "log2", "rsqrt"):
        return node.ins[0]
    if node.primitive == "integer_pow":
        return node.ins[0] if _compat_shapes.power(node.eqn) < 0 else None
    if node.primitive == "pow":
        exponent = constant(node.ins[1])
        return node.ins[0] if exponent is None or exponent < 0 else None
    return None


def is_positive(value: Value, is_zero: IsZero, depth: int = _DEPTH) -> bool:
    """True if a value is known to be greater than zero at the pruned indices."""
    number = constant(value)
    if number is not None:
        return number > 0
    node = value.producer
    if node is None or not depth or is_zero(value):
        return False
    positive = [is_positive(v, is_zero, depth - 1) for v in node.ins]
    name = node.primitive
    if name in ("exp", "exp2", "logistic", "erfc", "cosh"):
        return True
    if name in _KEEPS_SIGN or name in ("square", "abs", "integer_pow", "log1p"):
        return positive[0]
    if name in ("mul", "div", "min", "concatenate"):
        return all(positive)
    if name == "pow":
        return positive[0]
    if name == "max":
        return any(positive)
    if name == "sub":
        left, right = map(constant, node.ins)
        return left is not None and right is not None and left > right
    if name in ("add", "add_any"):
        others = [is_nonnegative(v, is_zero, depth - 1) for v in node.ins]
        return (positive[0] and others[1]) or (positive[1] and others[0])
    if name == "select_n":
        return all(positive[i] or _is_nan(v) for i, v in enumerate(node.ins) if i)
    return False


def is_nonnegative(value: Value, is_zero: IsZero, depth: int = _DEPTH) -> bool:
    """True if a value is known not to be less than zero at the pruned indices."""
    number = constant(value)
    if number is not None:
        return number >= 0
    if is_zero(value):
        return True
    node = value.producer
    if node is None or not depth:
        return False
    name = node.primitive
    if name in ("abs", "square", "exp", "exp2", "logistic", "erfc", "cosh"):
        return True
    if name == "integer_pow" and _compat_shapes.power(node.eqn) % 2 == 0:
        return True
    if name == "mul" and node.ins[0] is node.ins[1]:
        return True
    signs = [is_nonnegative(v, is_zero, depth - 1) for v in node.ins]
    if name in _KEEPS_SIGN or name in ("integer_pow", "log1p", "pow"):
        return signs[0]
    if name in ("mul", "div", "min", "add", "add_any", "concatenate"):
        return all(signs)
    if name == "max":
        return any(signs)
    if name == "sub":
        left, right = map(constant, node.ins)
        return left is not None and right is not None and left >= right
    if name == "select_n":
        return all(signs[i] or _is_nan(v) for i, v in enumerate(node.ins) if i)
    return False


def _is_nan(value: Value) -> bool:
    """True for the NaN that means of nothing return; such means are not finite anyway."""
    number = constant(value)
    return number is not None and math.isnan(number)
