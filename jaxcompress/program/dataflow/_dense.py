# SPDX-License-Identifier: Apache-2.0
"""Bring products of data and a weight into one form: (..., K) times (K, N)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from ._affine import collapse_along
from ._constants import aligned, collapse
from ._graph import Atom, Codes, Constant, Graph, Operation, Tensor


def as_matrices(graph: Graph) -> None:
    """Merge the axes of weights, in place, so that each has one axis of outputs.

    An attention projection has a kernel of three axes, whose scales lie along two of them;
    runtimes know one. A bias that follows moves in front of the axes' restoration.
    """
    readers = graph.readers()
    results = {id(x) for x in graph.outputs}
    operations: list[Operation] = []
    gone: set[int] = set()
    for op in graph.operations:
        if id(op) in gone:
            continue
        side = _weight_side(op)
        if side is None:
            operations.append(op)
            continue
        after = readers.get(id(op.outs[0]), [])
        bias = after[0] if len(after) == 1 and id(op.outs[0]) not in results else None
        new, used = _as_matrix(op, side, bias)
        operations += new
        if used:
            gone.add(id(bias))
    graph.operations = operations


def _weight_side(op: Operation) -> int | None:
    """Return the operand that is a weight to merge; None for other operations."""
    if op.primitive != "dot_general":
        return None
    _, (lhs_batch, _) = op.params["dimension_numbers"]
    sides = [i for i, x in enumerate(op.ins) if isinstance(x, Constant)]
    if len(sides) != 1 or lhs_batch or op.ins[sides[0]].value.ndim == 0:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    return sides[0]


def _as_matrix(
    op: Operation, side: int, bias: Operation | None
) -> tuple[list[Operation], bool]:
    weight, x = op.ins[side], op.ins[1 - side]
    assert isinstance(weight, Constant) and isinstance(x, Tensor)
    contraction, _ = op.params["dimension_numbers"]
    summed, x_summed = contraction[side], contraction[1 - side]
    outputs = [i for i in range(weight.value.ndim) if i not in summed]
    x_rest = [i for i in range(len(x.shape)) if i not in x_summed]
    rank = len(x.shape)
    is_plain = (
        side == 1
        and weight.value.ndim == 2
        and tuple(summed) == (0,)
        and tuple(x_summed) == (rank - 1,)
    )
    if is_plain:
        return [op], False
    matrix = _merged(weight, [*summed, *outputs], len(summed))
    if matrix is None:
        return [op], False
    steps = _Steps(op.scope)
    value = steps.transpose(x, [*x_rest, *x_summed])
    lead = [x.shape[i] for i in x_rest]
    batch = frozenset(k for k, i in enumerate(x_rest) if i in x.batch)
    value = steps.reshape(value, [*lead, matrix.shape[0]], batch)
    numbers = (((len(lead),), (0,)), ((), ()))
    params = {**op.params, "dimension_numbers": numbers, "out_sharding": None}
    out_type = op.outs[0].dtype

    def dot(a: Any, b: Any) -> Any:
        return lax.dot_general(
            a, b, numbers, op.params["precision"], op.params["preferred_element_type"]
        )

    value = steps.add(
        "dot_general",
        params,
        [value, matrix],
        [*lead, matrix.shape[1]],
        out_type,
        batch,
        dot,
    )
    out = op.outs[0]
    places = _places(len(x_rest), len(outputs), side)
    shift = _shift(bias, op, places, outputs)
    if shift is not None and bias is not None:
        full = np.broadcast_to(shift, value.shape)
        value = steps.add(
            "add",
            {},
            [value, Constant(full, leaf=weight.leaf)],
            value.shape,
            out_type,
            batch,
            jnp.add,
        )
        out = bias.outs[0]
    sizes = [weight.shape[i] for i in outputs]
    value = steps.reshape(value, [*lead, *sizes], batch)
    value = steps.transpose(value, places)
    return steps.ending_in(out, value), shift is not None


def _places(lead: int, outputs: int, side: int) -> list[int]:
    """Return the order of (lead, outputs) in the result of the original product."""
    order = list(range(lead + outputs))
    return order if side == 1 else [*order[lead:], *order[:lead]]


def _shift(
    bias: Operation | None, op: Operation, places: Sequence[int], outputs: Sequence[int]
) -> np.ndarray | None:
    """Return what is added to each output after a product, merged to one axis."""
    if bias is None or bias.primitive not in ("add", "add_any"):
        return None
    others = [a for a in bias.ins if isinstance(a, Constant)]
    if len(others) != 1 or bias.outs[0].shape != op.outs[0].shape:
        return None
    rank = len(op.outs[0].shape)
    axes = [places.index(rank - len(outputs) + k) for k in range(len(outputs))]
    along = collapse_along(others[0], op.outs[0], axes)
    return None if along is None else along.reshape(-1)


def _merged(weight: Constant, order: Sequence[int], contracted: int) -> Constant | None:
    """Return a weight as (K, N)."""

    def merge(a: np.ndarray) -> np.ndarray:
        a = np.broadcast_to(a, weight.shape).transpose(order)
        k = math.prod(a.shape[:contracted])
        return a.reshape(k, math.prod(a.shape[contracted:]))

    if weight.codes is None:
        return Constant(merge(weight.value), None, weight.leaf)
    c = weight.codes
    scale, points = collapse(merge(c.scale)), collapse(merge(c.zero_point))
    codes = aligned(Codes(merge(c.codes), scale, points, c.format))
    return Constant(merge(weight.value), codes, weight.leaf)


class _Steps:
    """Operations in a row, without those that change nothing."""

    def __init__(self, scope: str):
        self.scope = scope
        self.operations: list[Operation] = []

    def add(
        self,
        primitive: str,
        params: dict[str, Any],
        ins: list[Atom],
        shape: Sequence[int],
        dtype: Any,
        batch: frozenset[int],
        op: Callable[..., Any],
    ) -> Tensor:
        out = Tensor(tuple(shape), np.dtype(dtype), batch)
        self.operations.append(
            Operation(primitive, params, ins, [out], self.scope, lambda *xs: [op(*xs)])
        )
        return out

    def transpose(self, x: Tensor, order: Sequence[int]) -> Tensor:
        order = tuple(order)
        if order == tuple(range(len(order))):
            return x
        batch = frozenset(k for k, i in enumerate(order) if i in x.batch)
        shape = [x.shape[i] for i in order]
        params = {"permutation": order}
        return self.add(
            "transpose",
            params,
            [x],
            shape,
            x.dtype,
            batch,
            lambda a: a.transpose(order),
        )

    def reshape(self, x: Tensor, shape: Sequence[int], batch: frozenset[int]) -> Tensor:
        if tuple(shape) == x.shape:
            return x
        sizes = tuple(shape)
        params = {"new_sizes": sizes, "dimensions": None, "sharding": None}
        return self.add(
            "reshape",
            params,
            [x],
            sizes,
            x.dtype,
            batch,
            lambda a: lax.reshape(a, sizes),
        )

    def ending_in(self, out: Tensor, value: Tensor) -> list[Operation]:
        """Return the operations, the last of which writes a given tensor."""
        assert self.operations and self.operations[-1].outs[0] is value
        self.operations[-1].outs = [out]
        return self.operations
