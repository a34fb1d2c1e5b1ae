# SPDX-License-Identifier: Apache-2.0
"""Compile a short function once for eager callers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax

F = TypeVar("F", bound=Callable)


def one_program(*static: str) -> Callable[[F], F]:
    """Let a function of a few operations compile to one program when it runs eagerly.

    Eager JAX compiles each operation for each shape, at 10 to 30 ms a program: without
    this, the first ``init``, ``apply`` and ``finalize`` of one weight take half a second.
    Under ``jit``, ``vmap`` and ``grad`` the function is inlined, so it leaves no trace.

    Args:
      *static: names of the arguments that are no arrays; they must be hashable.
    """
    return functools.partial(jax.jit, static_argnames=static, inline=True)  # pyright: ignore[reportReturnType]
