# SPDX-License-Identifier: Apache-2.0
"""Signatures that name their defaults: ``budget=uniform``, not ``<function uniform at``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


class _Named:
    """Stands in a signature for a function that is a default value."""

    def __init__(self, function: Callable[..., Any]):
        self._function = function

    def __repr__(self) -> str:
        return self._function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._function(*args, **kwargs)


def name_defaults(function: _Function) -> _Function:
    """Make ``help`` show a default that is a function by its name. Returns the function.

    Example:
      >>> import inspect, jaxcompress as jc
      >>> inspect.signature(jc.magnitude_pruning).parameters["budget"].default
      uniform
    """
    signature = inspect.signature(function)
    named = [
        p.replace(default=_Named(p.default)) if _is_function(p.default) else p
        for p in signature.parameters.values()
    ]
    function.__signature__ = signature.replace(parameters=named)  # pyright: ignore[reportFunctionMemberAccess]
    return function


def _is_function(default: Any) -> bool:
    """True for functions, jitted ones included."""
    if inspect.isclass(default):
        return False
    return callable(default) and hasattr(default, "__name__")
