# SPDX-License-Identifier: Apache-2.0
"""The size of the file, or the cost of the bits, as a term of the loss."""

from . import costs
from ._add_price import RateState
from ._entropy_constrained import entropy_constrained
from ._learned_bits import LearnedBitsState, learned_bits, widths_of
from ._measure import measure
from ._multiplier import Multiplier
from ._shared_values import entropy_constrained_sharing

__all__ = [
    "LearnedBitsState",
    "Multiplier",
    "RateState",
    "costs",
    "entropy_constrained",
    "entropy_constrained_sharing",
    "learned_bits",
    "measure",
    "widths_of",
]
