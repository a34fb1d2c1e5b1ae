# SPDX-License-Identifier: Apache-2.0
"""Check arguments that are easily swapped or passed without being called."""

from __future__ import annotations

import inspect
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ._select import paths_and_leaves
from ._types import PyTree
from .leaves import LowRank, is_leaf


def check_compressor(x: Any, call: str) -> None:
    """Raise if an argument is not a compressor.

    Args:
      x: the argument.
      call: how the function is called: ``"compress(compressor, params)"``.

    Raises:
      TypeError: naming the likely mistake.
    """
    if not _is_compressor(x):
        raise TypeError(f"{call} takes a compressor, got {_describe(x)}")


def check_optimizer(x: Any, call: str) -> None:
    """Raise if an argument is not an optax optimizer; arguments as above.

    Raises:
      TypeError: naming the likely mistake.
    """
    if not _is_optimizer(x):
        raise TypeError(f"{call} takes an optax optimizer as tx, got {_describe(x)}")


def check_function(x: Any, call: str) -> None:
    """Raise if an argument is not a function; arguments as above.

    Raises:
      TypeError: naming the likely mistake.
    """
    if _is_compressor(x) or _is_optimizer(x) or not callable(x):
        raise TypeError(f"{call} takes a function first, got {_describe(x)}")


PATH = (str, os.PathLike)
"""The classes of a path, for ``check_kind``."""


def check_kind(x: Any, kind: type | tuple[type, ...], call: str, what: str) -> None:
    """Raise if an argument is not of a class, or of one of several.

    Args:
      x: the argument.
      kind: the class or classes.
      call: how the function is called: ``"shrink(fn, plan)"``.
      what: what it takes: ``"a Plan"``.

    Raises:
      TypeError: naming the likely mistake.
    """
    if not isinstance(x, kind):
        raise TypeError(f"{call} takes {what}, got {_describe(x)}")


def check_key(key: Any) -> None:
    """Raise if an argument is not a key of ``jax.random``.

    Raises:
      TypeError: saying how to make one.
    """
    if not isinstance(key, jax.Array):
        raise TypeError(f"key must be a key such as jax.random.key(0), got {key!r}.")


def check_whole(**counts: Any) -> None:
    """Raise if a count is not a whole number.

    None passes, and so does an integer scalar that is traced.

    Args:
      **counts: the arguments by name.

    Raises:
      TypeError: naming the argument, and the number that was probably meant.
    """
    for name, value in counts.items():
        if value is None or _is_whole(value):
            continue
        is_float = isinstance(value, float | np.floating) and float(value).is_integer()
        hint = f" Write {name}={int(value)}." if is_float else ""
        text = repr(value)
        given = text if len(text) <= 40 else f"a {type(value).__name__}"
        raise TypeError(f"{name} must be a whole number, got {given}.{hint}")


def check_flags(**flags: Any) -> None:
    """Raise if a flag is not a bool: ``"no"`` would count as true.

    Args:
      **flags: the arguments by name.

    Raises:
      TypeError: naming the argument.
    """
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {value!r}.")


def check_counts(least: int = 1, /, **counts: Any) -> None:
    """Raise if a count is not a whole number, or below ``least``; otherwise as above.

    Raises:
      TypeError: if it is not a whole number.
      ValueError: if it is too small.
    """
    check_whole(**counts)
    for name, value in counts.items():
        if value is not None and not isinstance(value, Tracer) and value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}.")


def takes_arguments(function: Callable[..., Any], number: int) -> bool:
    """Return whether a function takes this many positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * number)
    except TypeError:
        return False
    except ValueError:  # no signature, such as a builtin
        return True
    return True


def _is_whole(value: Any) -> bool:
    if isinstance(value, jax.Array):
        return not value.ndim and jnp.issubdtype(value.dtype, jnp.integer)
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool | np.bool_)


def check_params(params: PyTree, call: str) -> None:
    """Raise if parameters are not a tree of arrays; ``call`` as above.

    Raises:
      TypeError: naming the leaf and the likely mistake.
    """
    if _is_compressor(params):
        raise TypeError(f"{call} takes parameters, got {_describe(params)}")
    for node in jax.tree.leaves(params, is_leaf=is_leaf):
        # The factors of a low-rank leaf may be compressed further.
        if is_leaf(node) and not isinstance(node, LowRank):
            raise TypeError(
                f"{call} takes arrays, but the tree holds a {type(node).__name__}: it is "
                "compressed already. Pass the parameters as they were, or "
                "jaxcompress.dense(params)."
            )
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{call} takes arrays, but {path!r} is only the shape of one. To get the "
                "shapes of a result, call jax.eval_shape(function, params)."
            )
        if type(leaf).__module__.startswith("flax"):
            raise TypeError(
                f"{call} takes a tree of arrays, got a {type(leaf).__name__} of Flax. Pass "
                'the parameters alone: nnx.state(model, nnx.Param), or variables["params"].'
            )


def check_differentiable(params: PyTree) -> None:
    """Raise if a parameter has no gradient.

    Raises:
      TypeError: naming the leaf.
    """
    for path, leaf in zip(*paths_and_leaves(params)[:2], strict=True):
        if callable(leaf):
            raise TypeError(
                f"train_step takes arrays, but {path!r} is a function. Pass the arrays of "
                "a module alone, such as eqx.filter(model, eqx.is_inexact_array)."
            )
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            raise TypeError(
                f"train_step trains every leaf of the parameters, but {path!r} is "
                f"{jnp.result_type(leaf)}, which has no gradient. Pass counters and tables "
                "in model_state=, or close over them in the loss."
            )


def _is_compressor(x: Any) -> bool:
    return all(hasattr(x, name) for name in ("init", "apply", "update", "finalize"))


def _is_optimizer(x: Any) -> bool:
    has_both = hasattr(x, "init") and hasattr(x, "update")
    return has_both and not _is_compressor(x)


def _describe(x: Any) -> str:
    if _is_compressor(x):
        return "a Compressor. Are the arguments in another order?"
    if _is_optimizer(x):
        return "an optax optimizer. Are the arguments in another order?"
    if callable(x) and hasattr(x, "__name__"):
        return f"the function {x.__name__}. Call it: {x.__name__}(...)."
    if isinstance(x, (list, tuple)):
        return f"a {type(x).__name__}. Pass what it holds as separate arguments."
    text = repr(x)
    is_tree = isinstance(x, Mapping) or "\n" in text or len(text) > 40
    return (
        f"a {type(x).__name__}. Are the arguments in another order?"
        if is_tree
        else f"{text}."
    )
