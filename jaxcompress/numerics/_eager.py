# SPDX-License-Identifier: Apache-2.0
"""Compile little for callers outside of jit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax import lax
from jax.core import Tracer
from jax.tree_util import Partial

F = TypeVar("F", bound=Callable)


def one_program(*static: str) -> Callable[[F], F]:
    """Let a function of a few operations compile to one program when it runs eagerly.

    Eager JAX compiles each operation for each shape, at 10 to 30 ms a program: without
    this, the first ``init``, ``apply`` and ``finalize`` of one weight take half a second.
    Under ``jit``, ``vmap`` and ``grad`` the function is inlined, so it leaves no trace.

    Args:
      *static: names of the arguments that are not arrays; they must be hashable.
    """
    return functools.partial(jax.jit, static_argnames=static, inline=True)  # pyright: ignore[reportReturnType]


def cond(
    is_true: jax.Array,
    if_true: Callable[..., Any],
    if_false: Callable[..., Any],
    *operands: Any,
) -> Any:
    """Call one of two functions, like ``lax.cond``; outside of jit, call it directly.

    Eager ``lax.cond`` traces and compiles both functions at every call, since closures are
    never the same twice.

    Args:
      is_true: bool [], traced or not.
      if_true: function of the operands.
      if_false: function of the operands that returns arrays of the same shapes and dtypes.
      *operands: trees of arrays.
    """
    if isinstance(is_true, Tracer):
        return lax.cond(is_true, if_true, if_false, *operands)
    return (if_true if is_true else if_false)(*operands)


def as_partial(fn: Callable[..., Any]) -> Partial:
    """Make a function an argument of a jitted function.

    A ``Partial`` of a ``Partial`` would be another function each time, and compile again.
    """
    return fn if isinstance(fn, Partial) else Partial(fn)
