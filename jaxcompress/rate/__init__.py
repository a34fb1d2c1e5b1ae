# SPDX-License-Identifier: Apache-2.0
"""The size of the file as a term of the loss."""

from ._entropy_constrained import RateState, entropy_constrained
from ._measure import measure
from ._multiplier import Multiplier

__all__ = ["Multiplier", "RateState", "entropy_constrained", "measure"]
