# SPDX-License-Identifier: Apache-2.0
"""Tools for layer-by-layer solvers: weights as matrices, statistics, row sweeps."""

from ._evidence import STATS, Evidence, check_summed_axes
from ._matrices import Matrices, batched, joined, matrices, matrix_problems
from ._sweep import number, sweep

__all__ = [
    "Evidence",
    "Matrices",
    "STATS",
    "batched",
    "check_summed_axes",
    "joined",
    "matrices",
    "matrix_problems",
    "number",
    "sweep",
]
