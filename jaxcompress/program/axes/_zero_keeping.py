# SPDX-License-Identifier: Apache-2.0
"""Primitives that keep zeros, by name."""

from __future__ import annotations

import jax
import numpy as np

from ..trace._graph import Value

# They return their operand.
IDENTITIES = {
    "copy", "copy_p", "device_put", "name", "pvary", "reshard", "sharding_constraint",
}  # fmt: skip
# They map zero to zero.
KEEPS_ZERO = IDENTITIES | {
    "abs", "asin", "asinh", "atan", "atanh", "cbrt", "ceil", "conj", "convert_element_type",
    "cumsum", "erf", "erf_inv", "expm1", "floor", "imag", "log1p", "neg", "pbroadcast",
    "pcast", "psum", "real", "reduce_precision", "round", "sign", "sin", "sinh", "sqrt",
    "square", "stop_gradient", "tan", "tanh",
}  # fmt: skip
# Zero where their first operand is.
FOLLOWS_FIRST = {"div", "rem", "shift_left", "shift_right_arithmetic"}
PRODUCTS = {"mul", "and"}
SUMS = {"add", "add_any", "sub", "max", "min", "or", "xor", "complex"}
WINDOWS = {"reduce_window_max", "reduce_window_min", "reduce_window_sum"}


REPEATS = {"broadcast_in_dim", "convert_element_type", "copy"}
MOVES = {
    "broadcast_in_dim", "dynamic_slice", "gather", "pad", "reshape", "rev", "slice",
    "split", "squeeze", "tile", "transpose",
}  # fmt: skip


def constant(value: Value) -> float | None:
    """Return the number that a value repeats, if the program contains it."""
    while value.literal is None:
        node = value.producer
        if node is None or node.primitive not in REPEATS:
            return None
        value = node.ins[0]
    if value.aval.dtype == jax.dtypes.float0:
        return None
    is_real = np.ndim(value.literal) == 0 and np.isreal(value.literal)
    return float(value.literal) if is_real else None
