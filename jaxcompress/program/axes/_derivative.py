# SPDX-License-Identifier: Apache-2.0
"""The derivative rules of functions that have their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._mesh import struct_like
from ..trace import _compat
from ..trace._graph import Node, Value


@dataclasses.dataclass(frozen=True)
class Derivative:
    """The rule of a call with a custom derivative.

    Attributes:
      fn: ``(operands, tangents) -> tangents of the results``; for a reverse rule
        ``(operands, cotangents) -> cotangents of the operands``. Integers have none.
      forward: True for a rule of tangents, False for one of cotangents.
      moved: the values whose tangents or cotangents it takes.
      results: the values whose tangents or cotangents it returns.
    """

    fn: Callable[..., Any]
    forward: bool
    moved: list[Value]
    results: list[Value]


def derivative(node: Node) -> Derivative:
    """Return the derivative rule of a node."""
    op = _compat.operation(node.region.jaxpr, node.eqn)
    outs = [struct_like(v.aval) for v in node.outs]
    own, results = floats(node.ins, node.ins), floats(node.outs, node.outs)

    def listed(*xs: Any) -> list[Any]:
        result = op(*xs)
        return result if isinstance(result, list) else [result]

    def tangents(primals: Any, moved: Any) -> Any:
        every = with_zeros(primals, moved)
        return floats(jax.jvp(listed, tuple(primals), every)[1], outs)

    def cotangents(primals: Any, moved: Any) -> Any:
        every = with_zeros(outs, moved)
        return floats(jax.vjp(listed, *primals)[1](list(every)), primals)

    if "jvp" in node.primitive:
        return Derivative(tangents, True, own, results)
    return Derivative(cotangents, False, results, own)


def floats(items: Sequence[Any], like: Sequence[Any]) -> list[Any]:
    """Return the items that belong to values with derivatives."""
    return [
        item
        for item, value in zip(items, like, strict=True)
        if jnp.issubdtype(getattr(value, "aval", value).dtype, jnp.inexact)
    ]


def with_zeros(like: Sequence[Any], moved: Sequence[Any]) -> tuple[Any, ...]:
    """Return the derivatives of arrays; those of integers are zeros of no type."""
    rest = iter(moved)
    return tuple(
        next(rest)
        if jnp.issubdtype(x.dtype, jnp.inexact)
        else np.zeros(x.shape, jax.dtypes.float0)
        for x in like
    )
