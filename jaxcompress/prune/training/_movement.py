# SPDX-License-Identifier: Apache-2.0
"""Movement pruning: what training moves towards zero goes, for fine-tuning."""

from __future__ import annotations

from ..._combine import masked
from ..._compressor import Compressor
from ..._select import Where, is_weight
from .._prune import Schedule, prune
from ..budgets._sparsity import Budget, below, global_
from ..patterns._protocol import Pattern, unstructured
from ..schedules import Trigger
from ..scores._running import movement
from ..treatments import frozen


def movement_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = global_,
    pattern: Pattern = unstructured,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Prune the weights that training moves towards zero, whatever their size.

    For fine-tuning a pretrained network, whose magnitudes tell of the task before.
    Pruned weights keep their values and can come back. Needs ``grads=`` at the view.

    Args:
      sparsity: fraction of the selected weights to prune, or a schedule of it; a cubic
        ramp in the paper.
      budget: how the sparsity is spread over leaves.
      pattern: which weights go together.
      every: updates between two redrawings of the masks, or a ``prune.schedules.Trigger``.
      where: which leaves.

    Raises:
      ValueError, TypeError: as ``prune.prune`` and ``masked`` say.

    References:
      Sanh et al., 2020, https://arxiv.org/abs/2005.07683
    """
    pruner = prune(
        sparsity,
        score=movement(),
        budget=budget,
        pattern=pattern,
        pruned=frozen,
        every=every,
    )
    return masked(pruner, where)


def soft_movement_pruning(
    *,
    regularization: float,
    threshold: float = 0.0,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Movement pruning to a threshold of the score: the sparsity comes out of training.

    Args:
      regularization: how hard scores are pushed down at every update, against the
        ``-w g`` that lift them; the larger, the sparser.
      threshold: scores below it are pruned; they start at 0.
      every: updates between two redrawings of the masks, or a ``prune.schedules.Trigger``.
      where: which leaves.

    Raises:
      ValueError, TypeError: as ``prune.prune`` and ``masked`` say.

    References:
      Sanh et al., 2020, https://arxiv.org/abs/2005.07683
    """
    pruner = prune(
        0.0,
        score=movement(regularization),
        budget=below(threshold),
        pruned=frozen,
        every=every,
    )
    return masked(pruner, where)
