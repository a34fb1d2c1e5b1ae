# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses as JSON: strict about types, names and numbers in both directions."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def encode(value: Any, kind: Any, where: str) -> Any:
    """Convert a value to what JSON can hold.

    Args:
      value: an instance of ``kind``.
      kind: a dataclass, ``str``, ``bool``, ``int``, ``float``, a tuple, a mapping of
        strings, or a union with None of one of them.
      where: name of the value for errors.

    Raises:
      ValueError: for a number that is not finite, or another type than declared.
    """
    return _convert(value, kind, where, _fields_of)


def decode(value: Any, kind: Any, where: str) -> Any:
    """Convert a value back that ``encode`` made; arguments as there.

    Raises:
      ValueError: naming what is missing, unknown, or of another type than declared.
    """
    return _convert(value, kind, where, _instance_of)


def _convert(value: Any, kind: Any, where: str, open_up: Any) -> Any:
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        (kind,) = (part for part in parts if part is not types.NoneType)
        return None if value is None else _convert(value, kind, where, open_up)
    if dataclasses.is_dataclass(kind):
        return open_up(value, kind, where)
    if origin in (tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} must be a list, got {value!r}.")
        is_pair = origin is tuple and parts[-1] is not Ellipsis
        kinds = parts if is_pair else (parts[0],) * len(value)
        if len(kinds) != len(value):
            raise ValueError(f"{where} must have {len(kinds)} items, got {value!r}.")
        items = [
            _convert(item, part, f"{where}[{i}]", open_up)
            for i, (item, part) in enumerate(zip(value, kinds, strict=True))
        ]
        return tuple(items) if open_up is _instance_of else items
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be an object, got {value!r}.")
        return {
            _scalar(key, parts[0], where): _convert(
                item, parts[1], f"{where}[{key!r}]", open_up
            )
            for key, item in value.items()
        }
    return _scalar(value, kind, where)


def _scalar(value: Any, kind: Any, where: str) -> Any:
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise ValueError(f"{where} must be finite, got {number}.")
        return number
    if kind is int and hasattr(value, "__index__") and not isinstance(value, bool):
        return int(value)
    if kind in (str, bool) and isinstance(value, kind):
        return value
    raise ValueError(f"{where} must be of type {kind.__name__}, got {value!r}.")


def _fields_of(value: Any, kind: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, kind):
        raise ValueError(f"{where} must be a {kind.__name__}, got {value!r}.")
    return {
        name: encode(getattr(value, name), part, f"{where}.{name}")
        for name, part in _hints(kind).items()
    }


def _instance_of(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where} must be an object, got {value!r}.")
    hints = _hints(kind)
    for text, names in (
        ("misses", hints.keys() - value.keys()),
        ("has the unknown", value.keys() - hints.keys()),
    ):
        if names:
            raise ValueError(f"{where} {text} {', '.join(sorted(map(repr, names)))}.")
    return kind(
        **{
            name: decode(value[name], part, f"{where}.{name}")
            for name, part in hints.items()
        }
    )


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}
