# SPDX-License-Identifier: Apache-2.0
"""Libraries of others, and this one, for the same work on the same small network.

A library rounds weights, trains with rounded weights, or computes with 8 bits; what it
does not offer is None. Its module imports it only when it is called.
"""

from __future__ import annotations

from ._find import Library, Skipped, attempt, missing
from ._list import LIBRARIES, floats
from ._work import Layers, Trained, Work, weights_off, work

__all__ = [
    "LIBRARIES",
    "Layers",
    "Library",
    "Skipped",
    "Trained",
    "Work",
    "attempt",
    "floats",
    "missing",
    "weights_off",
    "work",
]
