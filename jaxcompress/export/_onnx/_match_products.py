# SPDX-License-Identifier: Apache-2.0
"""Products with a bias."""

from __future__ import annotations

import numpy as np

from .._graph import Atom, Constant, Operation
from ._dense import free_axes
from ._match import Match, Matcher
from ._value import constant


def bias(m: Matcher, op: Operation) -> Match | None:
    """A product plus one constant for each output; a transposition may stand between."""
    if op.primitive not in ("add", "sub") or not m.floats(op):
        return None
    for x, term in (op.ins, op.ins[::-1]):
        if not isinstance(term, Constant) or isinstance(x, Constant):
            continue
        if op.primitive == "sub":
            if x is not op.ins[0]:
                continue
            term = Constant(-np.asarray(term.value), leaf=term.leaf)
        turn = m.op(x, "transpose")
        product = m.op(
            turn.ins[0] if turn else x, "conv_general_dilated", "dot_general"
        )
        if product is None or len(product.ins) > 2:
            continue
        value = np.asarray(term.value)
        if turn is not None and value.ndim:
            value = value.transpose(np.argsort(turn.params["permutation"]))
        vector = _per_output(product, value)
        if vector is None:
            continue
        ins: list[Atom] = [*product.ins, Constant(vector, leaf=term.leaf)]
        if turn is None:
            new = [Operation(product.primitive, product.params, ins, op.outs, op.scope)]
            return Match(new, [product])
        biased = Operation(
            product.primitive, product.params, ins, product.outs, product.scope
        )
        turned = Operation(turn.primitive, turn.params, turn.ins, op.outs, op.scope)
        return Match([biased, turned], [turn, product])
    return None


def _per_output(product: Operation, value: np.ndarray) -> np.ndarray | None:
    """Return a term as one number for each output of a product, or None."""
    if product.primitive == "conv_general_dilated":
        outputs = [product.params["dimension_numbers"].out_spec[1]]
    else:
        contracted, batch = product.params["dimension_numbers"]
        constants = [isinstance(atom, Constant) for atom in product.ins]
        if batch[0] or not any(constants):
            return None
        if constants[0]:
            outputs = list(range(len(free_axes(product, 0))))
        else:
            n = len(free_axes(product, 0))
            outputs = list(range(n, n + len(free_axes(product, 1))))
    kept = constant(value)
    if not set(kept.order) <= set(outputs):
        return None
    assert kept.array is not None
    sizes = [product.outs[0].shape[a] for a in outputs]
    ones = [n if a in kept.order else 1 for a, n in zip(outputs, sizes, strict=True)]
    return np.broadcast_to(kept.array.reshape(ones), sizes).reshape(-1)
