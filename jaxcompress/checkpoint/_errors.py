# SPDX-License-Identifier: Apache-2.0
"""The error of checkpoints, and the checks of their arguments."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message gives the likely reason."""


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an argument as an int.

    Raises:
      TypeError: if it is not a whole number. A bool does not count as one.
      ValueError: if it is below ``least``.
    """
    try:
        number = operator.index(value)
        if np.asarray(value).dtype == bool:
            raise TypeError
    except TypeError:
        raise TypeError(f"{name} must be a whole number, got {value!r}.") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}.")
    return number
