# SPDX-License-Identifier: Apache-2.0
"""What layer-by-layer solvers share: weights as matrices, one pass over their rows."""

from ._evidence import STATS, Evidence
from ._matrices import Matrices, batched, joined, matrices, matrix_problems
from ._sweep import number, sweep

__all__ = [
    "Evidence",
    "Matrices",
    "STATS",
    "batched",
    "joined",
    "matrices",
    "matrix_problems",
    "number",
    "sweep",
]
