# SPDX-License-Identifier: Apache-2.0
"""Layer norm, as Flax, Equinox and hand-written code compute it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...program.dataflow import Atom, Constant, Operation
from ._match import Match, Matcher
from ._value import constant

_SPREAD = ("broadcast_in_dim", "expand_dims", "reshape")


class _Normal(NamedTuple):
    """``(x - mean) * rsqrt(variance + epsilon) * scale``, and the operations of it."""

    x: Atom
    scale: Atom | None
    epsilon: float
    inside: list[Operation]


def layer_norm(m: Matcher, op: Operation) -> Match | None:
    """``(x - mean) * rsqrt(variance + epsilon) * scale + bias``, over the last axis."""
    inside: list[Operation] = []
    offset, product = None, op
    if op.primitive == "add":
        x, offset = _with_vector(op)
        found = m.op(x, "mul")
        if found is None:
            return None
        product, inside = found, [found]
    if product.primitive != "mul" or not m.floats(op):
        return None
    core = _normalized(m, product)
    if core is None:
        return None
    x, scale, epsilon, more = core
    n = x.shape[-1]
    vectors: list[Atom] = [Constant(np.ones(n, np.float32)) if scale is None else scale]
    if offset is not None:
        vectors.append(offset)
    if not all(_last_only(v, len(x.shape), n) for v in vectors):
        return None
    vectors = [Constant(_last(v, n)) for v in vectors]
    params = {"axes": (len(x.shape) - 1,), "epsilon": epsilon}
    new = Operation("layer_norm", params, [x, *vectors], op.outs, op.scope)
    return Match([new], inside + more)


def _with_vector(op: Operation) -> tuple[Atom | None, Constant | None]:
    for x, term in (op.ins, op.ins[::-1]):
        if isinstance(term, Constant) and not isinstance(x, Constant):
            return x, term
    return None, None


def _last_only(atom: Atom, rank: int, n: int) -> bool:
    shape = atom.shape
    order = constant(np.asarray(atom.value)).order  # type: ignore[union-attr]
    return not order or (order == (len(shape) - 1,) and shape[-1] == n)


def _last(atom: Atom, n: int) -> np.ndarray:
    kept = constant(np.asarray(atom.value)).array  # type: ignore[union-attr]
    assert kept is not None
    return np.broadcast_to(kept.reshape(-1), n).astype(np.float32)


def _normalized(m: Matcher, product: Operation) -> _Normal | None:
    for left, right in (product.ins, product.ins[::-1]):
        inner, centered = m.op(right, "mul"), m.op(left, "sub")
        if isinstance(left, Constant) and inner is not None:
            normal = _normalized(m, inner)
            if normal is not None and normal.scale is None:
                return normal._replace(scale=left, inside=[inner, *normal.inside])
        elif centered is not None:
            normal = _centered(m, centered, right)
            if normal is not None:
                return normal
    return None


def _centered(m: Matcher, centered: Operation, factor: Atom) -> _Normal | None:
    """Match ``(x - mean) * factor``."""
    x = centered.ins[0]
    mean = _mean(m, centered.ins[1], x)
    scale, inside = None, [centered]
    scaled = m.op(factor, "mul")
    if scaled is not None:
        root, scale = _with_vector(scaled)
        if root is None:
            return None
        factor = root
        inside.append(scaled)
    root = m.op(factor, "rsqrt")
    shifted = m.op(root.ins[0], "add") if root else None
    variance, epsilon = m.with_scalar(shifted)
    if mean is None or root is None or shifted is None or variance is None:
        return None
    spread = _variance(m, variance, x)
    if spread is None:
        return None
    return _Normal(x, scale, epsilon, [*inside, root, shifted, *mean, *spread])


def _variance(m: Matcher, atom: Atom, x: Atom) -> list[Operation] | None:
    """Match the variance over the last axis: E[x**2] - E[x]**2, or E[(x - E[x])**2]."""
    inside = []
    for _ in range(3):  # a maximum with 0, before or after the axis is put back
        op = m.op(atom, "max", *_SPREAD)
        if op is None:
            break
        if op.primitive == "max":
            value, bound = m.with_scalar(op)
            if value is None or bound != 0:
                return None
            atom = value
        elif m.op(op.ins[0], "max") or m.op(op.ins[0], "sub"):
            atom = op.ins[0]
        else:
            break
        inside.append(op)
    difference = m.op(atom, "sub")
    if difference is not None:
        squares, squared = (
            _square_mean(m, difference.ins[0]),
            m.op(difference.ins[1], "square"),
        )
        if squares is None or squared is None or squares[0] is not x:
            return None
        mean = _mean(m, squared.ins[0], x)
        return (
            None if mean is None else [*inside, difference, squared, *squares[1], *mean]
        )
    squares = _square_mean(m, atom)
    centered = m.op(squares[0], "sub") if squares else None
    if squares is None or centered is None or centered.ins[0] is not x:
        return None
    mean = _mean(m, centered.ins[1], x)
    return None if mean is None else [*inside, centered, *squares[1], *mean]


def _square_mean(m: Matcher, atom: Atom) -> tuple[Atom, list[Operation]] | None:
    """Match the mean of a square over the last axis."""
    found = _mean_of(m, atom)
    square = m.op(found[0], "square", "integer_pow") if found else None
    if found is None or square is None or square.params.get("y", 2) != 2:
        return None
    return square.ins[0], [square, *found[1]]


def _mean(m: Matcher, atom: Atom, x: Atom) -> list[Operation] | None:
    """Match the mean of ``x`` over the last axis."""
    found = _mean_of(m, atom)
    return found[1] if found is not None and found[0] is x else None


def _mean_of(m: Matcher, atom: Atom) -> tuple[Atom, list[Operation]] | None:
    """Match a mean over the last axis; the axis may be put back before or after."""
    inside = []
    spread: list[Operation] = []
    op = m.op(atom, *_SPREAD)
    if op is not None:
        spread, atom = [op], op.ins[0]
    op = m.op(atom, "div", "mul")
    value, number = m.with_scalar(op)
    if op is None or value is None or not number:
        return None
    if op.primitive == "div" and value is not op.ins[0]:
        return None
    inside.append(op)
    op_spread = m.op(value, *_SPREAD)
    if op_spread is not None and not spread:
        spread, value = [op_spread], op_spread.ins[0]
    summed = m.op(value, "reduce_sum")
    if summed is None:
        return None
    x, axes = summed.ins[0], tuple(summed.params["axes"])
    count = number if op.primitive == "div" else 1 / number
    if axes != (len(x.shape) - 1,) or not math.isclose(
        count, x.shape[-1], rel_tol=1e-6
    ):
        return None
    if spread and not m.keeps(spread[0], summed):
        return None
    return x, [*inside, summed, *spread]
