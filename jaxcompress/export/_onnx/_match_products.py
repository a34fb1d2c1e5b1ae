# SPDX-License-Identifier: Apache-2.0
"""Products with a bias."""

from __future__ import annotations

import dataclasses

import numpy as np

from ...program.dataflow import Atom, Constant, Operation
from ._dense import free_axes
from ._match import Match, Matcher
from ._value import constant

_MOVES = ("expand_dims", "reshape", "squeeze", "transpose")


def bias(m: Matcher, op: Operation) -> Match | None:
    """A product plus one constant for each output; moves of axes may stand between."""
    if op.primitive not in ("add", "add_any", "sub") or not m.floats(op):
        return None
    for x, term in (op.ins, op.ins[::-1]):
        if not isinstance(term, Constant) or isinstance(x, Constant):
            continue
        if op.primitive == "sub" and x is not op.ins[0]:
            continue
        moves, product = _before_moves(m, x)
        if product is None or len(product.ins) > 2:
            continue
        vector = _per_output(product, _moved_back(np.asarray(term.value), x, moves))
        if vector is None:
            continue
        vector = -vector if op.primitive == "sub" else vector
        ins: list[Atom] = [*product.ins, Constant(vector, leaf=term.leaf)]
        steps = [dataclasses.replace(product, ins=ins), *moves]
        steps[-1] = dataclasses.replace(steps[-1], outs=op.outs)
        return Match(steps, [product, *moves])
    return None


def _before_moves(m: Matcher, x: Atom) -> tuple[list[Operation], Operation | None]:
    """Return the moves that end in a value, and the product before them."""
    moves: list[Operation] = []
    while (move := m.op(x, *_MOVES)) is not None and len(move.ins) == 1:
        moves.insert(0, move)
        x = move.ins[0]
    return moves, m.op(x, "conv_general_dilated", "dot_general")


def _moved_back(value: np.ndarray, x: Atom, moves: list[Operation]) -> np.ndarray:
    """Undo moves, so that a term of their result is one of what they move."""
    value = np.broadcast_to(value, x.shape)
    for move in reversed(moves):
        if move.primitive == "transpose":
            value = value.transpose(np.argsort(move.params["permutation"]))
        else:
            value = value.reshape(move.ins[0].shape)
    return value


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
