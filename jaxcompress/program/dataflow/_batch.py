# SPDX-License-Identifier: Apache-2.0
"""Tell operations that fit any batch from those that were made for one."""

from __future__ import annotations

import numpy as np

from ._constants import collapse
from ._graph import Atom, Constant, Operation

# Parameters that stand for positions and counts; other lengths follow from the operands.
_POSITIONS = (
    "k", "padding", "padding_config", "reps", "sizes", "start_indices", "strides",
    "window_dimensions",
)  # fmt: skip


def made_for_one(a: Operation, b: Operation) -> str:
    """Return what of an operation depends on the length of the batch; "" if nothing does.

    Args:
      a: the operation for one batch.
      b: the same operation for another.
    """
    if any(not same_constant(x, y) for x, y in zip(a.ins, b.ins, strict=True)):
        return "a constant"
    if any(a.params.get(key) != b.params.get(key) for key in _POSITIONS):
        return "a position"
    limits = a.params.get("limit_indices", ()), b.params.get("limit_indices", ())
    for i, (m, n) in enumerate(zip(*limits, strict=True)):
        if m != n and (m, n) != (a.ins[0].shape[i], b.ins[0].shape[i]):
            return "a position"
    return ""


def same_constant(a: Atom, b: Atom) -> bool:
    """Return whether two constants are the same, up to how often they repeat."""
    if not isinstance(a, Constant) or not isinstance(b, Constant):
        return isinstance(a, Constant) == isinstance(b, Constant)
    x, y = a.value, b.value
    if x.shape != y.shape:
        x, y = collapse(x), collapse(y)
    if x.shape != y.shape:
        return False
    return bool(np.all((x == y) | ((x != x) & (y != y))))
