# SPDX-License-Identifier: Apache-2.0
"""Classes of JAX primitives, by name."""

from __future__ import annotations

# One operand; they move its elements or change their dtype, but do not combine elements.
MOVES = {
    "broadcast_in_dim", "convert_element_type", "copy", "name", "optimization_barrier",
    "pbroadcast", "pcast", "pvary", "reshape", "rev", "sharding_constraint",
    "squeeze", "stop_gradient", "transpose",
}  # fmt: skip

# Each element of the result depends only on the operands' elements at the same index.
ELEMENTWISE = {
    "abs", "add", "add_any", "and", "bitcast_convert_type", "cbrt", "ceil", "clamp",
    "cos", "cosh", "div", "eq", "erf", "erf_inv", "erfc", "exp", "exp2", "expm1",
    "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "log2",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "nextafter", "not",
    "one_minus_square", "or", "pow", "reduce_precision", "rem", "round", "rsqrt",
    "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign",
    "sin", "sinh", "sqrt", "square", "sub", "tan", "tanh", "xor",
}  # fmt: skip

# Elementwise across devices.
COLLECTIVES = {"pmax", "pmin", "psum", "psum2", "psum_invariant"}

# They place several operands side by side.
GATHERING = {"concatenate", "stack"}

# A runtime fuses these into a product if the other operand is constant.
AFFINE = {"add", "add_any", "sub", "mul", "div"}

# They may combine two tensors.
JOINING = AFFINE | GATHERING | {"max", "min"}

# Their results contain only values of the first operand, and padding.
SELECTING = MOVES | {
    "dynamic_slice", "pad", "reduce_max", "reduce_window_max", "slice", "split",
}  # fmt: skip
