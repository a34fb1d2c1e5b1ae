# SPDX-License-Identifier: Apache-2.0
"""Arrays that fit the inputs of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np


class Input(NamedTuple):
    """An input of a model; a length that may vary is not an integer."""

    name: str
    dtype: np.dtype
    shape: Sequence[Any]


def fitting(inputs: Sequence[Input], arrays: Sequence[Any]) -> dict[str, np.ndarray]:
    """Return arrays by the names of the inputs.

    Raises:
      ValueError: if there are too many or too few, or one does not fit.
    """
    if len(arrays) != len(inputs):
        names = ", ".join(repr(x.name) for x in inputs)
        raise ValueError(
            f"the file has {len(inputs)} inputs ({names}), got {len(arrays)} arrays."
        )
    return {x.name: _fit(x, a) for x, a in zip(inputs, arrays, strict=True)}


def _fit(x: Input, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.name == "bfloat16" and x.dtype == np.float32:
        array = array.astype(np.float32)
    fits = array.ndim == len(x.shape) and all(
        not isinstance(n, int) or n == m
        for n, m in zip(x.shape, array.shape, strict=True)
    )
    if not fits or array.dtype != x.dtype:
        wanted = ", ".join(map(str, x.shape))
        raise ValueError(
            f"input {x.name!r} takes an array of {x.dtype} [{wanted}], got {array.dtype} "
            f"{list(array.shape)}."
        )
    return array
