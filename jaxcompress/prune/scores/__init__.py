# SPDX-License-Identifier: Apache-2.0
"""Scores: how important each weight is. The lowest are pruned."""

from ._fisher import FisherBlocks, fisher_blocks, fisher_diagonal
from ._immediate import (
    Score,
    activation,
    grasp,
    magnitude,
    random,
    saliency,
    snip,
    synflow,
    wanda,
)
from ._loss_gradients import hessian_gradient, synaptic_flow
from ._running import Running, as_running, averaged, fisher, movement, obd

__all__ = [
    "FisherBlocks",
    "Running",
    "Score",
    "activation",
    "as_running",
    "averaged",
    "fisher",
    "fisher_blocks",
    "fisher_diagonal",
    "grasp",
    "hessian_gradient",
    "magnitude",
    "movement",
    "obd",
    "random",
    "saliency",
    "snip",
    "synaptic_flow",
    "synflow",
    "wanda",
]
