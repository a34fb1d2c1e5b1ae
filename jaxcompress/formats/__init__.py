# SPDX-License-Identifier: Apache-2.0
"""Number formats: which values a code can stand for, in units of a scale."""

from ._float import (
    BF16 as BF16,
    E2M1 as E2M1,
    E2M3 as E2M3,
    E3M2 as E3M2,
    E4M3 as E4M3,
    E5M2 as E5M2,
    F16 as F16,
    Float as Float,
)
from ._format import Format as Format, ToInteger as ToInteger, nearest as nearest
from ._int import Int as Int
from ._levels import (
    NF4 as NF4,
    Levels as Levels,
    additive_powers_of_two as additive_powers_of_two,
    codebook as codebook,
    powers_of_two as powers_of_two,
)
