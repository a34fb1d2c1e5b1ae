# SPDX-License-Identifier: Apache-2.0
"""Movement pruning: prune weights that fine-tuning moves toward zero."""

from __future__ import annotations

from ..._combine import masked
from ..._compressor import Compressor
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from .._prune import Schedule, prune
from ..budgets._sparsity import Budget, below, global_
from ..patterns._protocol import Pattern, unstructured
from ..schedules import Trigger
from ..scores._running import movement
from ..treatments import frozen


@name_defaults
def movement_pruning(
    sparsity: float | Schedule,
    *,
    budget: Budget = global_,
    pattern: Pattern = unstructured,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Prune the weights that training moves toward zero, whatever their magnitude.

    Use it to fine-tune a pretrained network, whose magnitudes reflect the old task.
    Pruned weights keep their values and can return. ``update`` needs ``grads=`` at the
    view.

    Args:
      sparsity: fraction of the selected weights to prune, or a schedule of it; the
        paper uses a cubic ramp.
      budget: how the sparsity is divided among the leaves.
      pattern: which weights are pruned together.
      every: number of updates between redraws of the masks, or a
        ``prune.schedules.Trigger``.
      where: which leaves.

    Raises:
      ValueError, TypeError: see ``prune.prune`` and ``masked``.

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


@name_defaults
def soft_movement_pruning(
    *,
    regularization: float,
    threshold: float = 0.0,
    every: int | Trigger = 1,
    where: Where = is_weight,
) -> Compressor:
    """Prune weights whose movement score falls below a threshold; no preset sparsity.

    Training sets the sparsity. Use it instead of ``movement_pruning`` when the sparsity
      need not be fixed in advance.

    Args:
      regularization: how strongly scores are pushed down at every update, against the
        ``-w g`` that raises them; larger means sparser.
      threshold: scores below it are pruned; scores start at 0.
      every: number of updates between redraws of the masks, or a
        ``prune.schedules.Trigger``.
      where: which leaves.

    Raises:
      ValueError, TypeError: see ``prune.prune`` and ``masked``.

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
