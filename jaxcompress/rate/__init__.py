# SPDX-License-Identifier: Apache-2.0
"""The size of the file, or the cost of the bits, as a term of the loss."""

from . import costs
from ._entropy_constrained import RateState, entropy_constrained
from ._learned_bits import LearnedBitsState, learned_bits, widths_of
from ._measure import measure
from ._multiplier import Multiplier

__all__ = [
    "LearnedBitsState",
    "Multiplier",
    "RateState",
    "costs",
    "entropy_constrained",
    "learned_bits",
    "measure",
    "widths_of",
]
