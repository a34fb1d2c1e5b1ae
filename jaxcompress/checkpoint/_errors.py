# SPDX-License-Identifier: Apache-2.0
"""The error of checkpoints, and the checks of their arguments."""

from __future__ import annotations

import operator
from typing import Any

from .._arguments import check_counts


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written or read; the message gives the likely reason."""


def whole_number(name: str, value: Any, least: int) -> int:
    """Return an argument as an int.

    Raises:
      TypeError: if it is not a whole number. A bool does not count as one.
      ValueError: if it is below ``least``.
    """
    check_counts(least, **{name: value})
    return operator.index(value)
