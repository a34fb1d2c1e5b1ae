# SPDX-License-Identifier: Apache-2.0
"""Pruning: score, budget, pattern, mask. Each is a plain function a reader can swap."""

from ._budgets import (
    Budget as Budget,
    erk as erk,
    global_ as global_,
    uniform as uniform,
)
from ._patterns import NOfM as NOfM, Pattern as Pattern, unstructured as unstructured
from ._prune import (
    PruneState as PruneState,
    magnitude_pruning as magnitude_pruning,
    prune as prune,
)
from ._scores import Score as Score, magnitude as magnitude
