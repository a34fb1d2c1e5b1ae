# SPDX-License-Identifier: Apache-2.0
"""Name the mistake if a function of a compressor fails on a state that is not its own."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._select import paths_and_leaves
from ._types import PyTree


def name_wrong_state(
    fn: Callable[..., Any], init: Callable[[PyTree], PyTree]
) -> Callable[..., Any]:
    """Name the mistake if a function of ``(params, state)`` fails on something else.

    On ``(state, params)``, or a state of another compressor. An error that speaks of the
    state itself stays as it is.

    Args:
      fn: a function of a compressor.
      init: its ``params -> state``, which tells one from the other.
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            if len(args) != 2 or "the state" in str(error):
                raise
            if _is_state(args[0], init, args[1]):
                raise TypeError(
                    "apply, update and finalize take (params, state), got the state first. "
                    "Are the arguments in another order?"
                ) from error
            expected = _state_of(init, args[0])
            difference = "" if expected is None else _difference(expected, args[1])
            if not difference:
                raise
            raise TypeError(
                "apply, update and finalize need a state that this compressor's init made "
                f"for these parameters. {difference}"
            ) from error

    return run


def _is_state(x: Any, init: Callable[[PyTree], PyTree], params: Any) -> bool:
    """Return whether ``x`` has the structure of a state for these parameters."""
    state = _state_of(init, params)
    if state is None or _is_alike(state, params):
        return False
    return _is_alike(state, x)


def _state_of(init: Callable[[PyTree], PyTree], params: Any) -> PyTree | None:
    """Return the shapes of a state; None if ``params`` are not parameters of ``init``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return jax.eval_shape(init, params)
    except Exception:  # not parameters, or their values are needed
        return None


def _is_alike(a: PyTree, b: PyTree) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b)


def _difference(expected: PyTree, got: PyTree) -> str:
    """Say how two states differ; nothing if they have the same parts and shapes."""
    if _is_alike(expected, got):
        paths, leaves, _ = paths_and_leaves(expected)
        for path, a, b in zip(paths, leaves, jax.tree.leaves(got), strict=True):
            if a.shape != jnp.shape(b):
                return (
                    f"The state has {path!r} of shape {jnp.shape(b)}, but these parameters "
                    f"need {jnp.shape(a)}."
                )
        return ""
    kinds = [_kind_of(state) for state in (expected, got)]
    if kinds[0] != kinds[1]:
        return f"It makes {kinds[0]}, got {kinds[1]}."
    paths = [set(paths_and_leaves(state)[0]) for state in (expected, got)]
    missing, unknown = (sorted(a - b) for a, b in (paths, paths[::-1]))
    parts = [f"lacks {missing[0]!r}"] if missing else []
    parts += [f"has {unknown[0]!r}, which is not its own"] if unknown else []
    difference = " and ".join(parts) or "holds its parts in other containers"
    return f"The state, {kinds[0]}, {difference}."


def _kind_of(state: PyTree) -> str:
    """Describe a state: by its class, or by the classes in its parts."""
    if isinstance(state, dict):
        parts = jax.tree.leaves(state, is_leaf=lambda x: not isinstance(x, dict))
        kinds = [type(part).__name__ for part in parts if part is not None]
        return f"a tree of {kinds[0]}" if kinds else "an empty tree"
    if type(state) is tuple and state:
        return f"({', '.join(map(_kind_of, state))})"
    return "an empty tuple" if state == () else f"a {type(state).__name__}"
