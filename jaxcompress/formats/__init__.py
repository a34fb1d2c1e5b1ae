# SPDX-License-Identifier: Apache-2.0
"""Number formats for quantization: the levels that codes represent, times a scale."""

from ._float import (
    BF16,
    E2M1,
    E2M3,
    E3M2,
    E4M3,
    E5M2,
    F16,
    Float,
)
from ._format import Format, ToInteger, nearest
from ._int import Int
from ._levels import (
    NF4,
    Levels,
    additive_powers_of_two,
    codebook,
    powers_of_two,
)

__all__ = [
    "BF16",
    "E2M1",
    "E2M3",
    "E3M2",
    "E4M3",
    "E5M2",
    "F16",
    "Float",
    "Format",
    "Int",
    "Levels",
    "NF4",
    "ToInteger",
    "additive_powers_of_two",
    "codebook",
    "nearest",
    "powers_of_two",
]
