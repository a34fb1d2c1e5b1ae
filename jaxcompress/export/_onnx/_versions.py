# SPDX-License-Identifier: Apache-2.0
"""The packages of the extra, and the versions that are tested."""

from __future__ import annotations

import importlib
import importlib.metadata
from types import ModuleType

from ..._warn import warn

_TESTED = {
    "onnx": ((1, 19), (1, 24)),
    "onnxruntime": ((1, 23), (1, 33)),
    "openvino": ((2026, 0), (2027, 0)),
}


def package(name: str, extra: str = "onnx") -> ModuleType:
    """Import a package, and warn if its version was not tested.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} is not installed; run: pip install 'jaxcompress[{extra}]'"
        ) from error
    version = importlib.metadata.version(name)
    low, high = _TESTED[name]
    if not low <= _numbers(version) < high:
        tested = " to ".join(".".join(map(str, bound)) for bound in (low, high))
        warn(f"{name} {version} is not tested; versions from {tested} are (exclusive).")
    return module


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split(".")[:2]
    return tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in parts)
