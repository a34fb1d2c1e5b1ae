# SPDX-License-Identifier: Apache-2.0
"""Lottery tickets: train, prune, rewind the remaining weights, train again."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._arguments import check_whole
from ..._combine import masked
from ..._compressor import Compressor, PyTree, Restart
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ...numerics import cond
from .._prune import prune
from ..budgets._sparsity import Budget, global_
from ..patterns._protocol import Pattern, unstructured
from ..schedules import geometric, periodic
from ..scores._immediate import Score, magnitude


class LotteryState(NamedTuple):
    """State of ``lottery_ticket``."""

    count: jax.Array  # int32 []: updates so far
    pruning: PyTree  # state of the pruner; it counts rounds
    early: PyTree  # like params: the rewind point; empty without rewinding
    restart: Restart | tuple[()]

    @property
    def masks(self) -> PyTree:
        """Bool arrays like the selected parameters, True where the weight is kept."""
        return self.pruning.masks


@name_defaults
def lottery_ticket(
    sparsity: float,
    *,
    rounds: int,
    every: int,
    rewind_to: int | None = 0,
    score: Score = magnitude,
    budget: Budget = global_,
    pattern: Pattern = unstructured,
    where: Where = is_weight,
) -> Compressor:
    """Find a lottery ticket: prune in rounds, rewinding the kept weights to an early step.

    Training runs to step ``rewind_to``, stores the parameters, and goes on for
    ``every`` steps. Then each of the ``rounds`` rounds does this: it prunes a fraction
    of the remaining weights, sets all parameters (biases and norms too) back to the
    stored ones, restarts the optimizer (``train_step`` does this, and a learning-rate
    schedule starts over), and trains for ``every`` steps. In total that takes
    ``rewind_to + (rounds + 1) * every`` steps.

    State outside the parameters, such as batch statistics, is not rewound. The rewind
    happens in the update that ends a round, so the trained weights of a round are the
    parameters passed to its last step, plus that step.

    Args:
      sparsity: sparsity after the last round, in [0, 1). Every round prunes the same
        fraction of the remaining weights; for the paper's 20 %, pass ``1 - 0.8**rounds``.
      rounds: number of pruning rounds.
      every: training steps per round.
      rewind_to: the step whose parameters are stored; 0 for the initial ones; None to
        keep training without rewinding (iterative magnitude pruning).
      score: how important each weight is; a function of the parameters alone.
      budget: how the sparsity is divided among the leaves.
      pattern: which weights are pruned together.
      where: which leaves are pruned.

    Raises:
      ValueError: if a number is out of range; in ``init``, if nothing is selected.

    References:
      Frankle and Carbin, 2019, https://arxiv.org/abs/1803.03635; rewinding: Frankle et
      al., 2020, https://arxiv.org/abs/1912.05671

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, 2.0, 3.0, 4.0]])}
      >>> ticket = jc.lottery_ticket(0.5, rounds=1, every=2)
      >>> state = ticket.init(params)
      >>> trained = {"kernel": jnp.array([[9.0, 0.1, 0.2, 9.0]])}
      >>> for _ in range(2):
      ...     rewound, state = ticket.update(trained, state)
      >>> ticket.apply(rewound, state)["kernel"].tolist()
      [[1.0, 0.0, 0.0, 4.0]]
    """
    start = rewind_to or 0
    check_whole(rounds=rounds, every=every, rewind_to=rewind_to)
    if rounds < 1 or every < 1 or start < 0:
        raise ValueError(
            "rounds and every must be at least 1, and rewind_to at least 0 or None, got "
            f"rounds={rounds}, every={every}, rewind_to={rewind_to}."
        )
    end = start + rounds * every
    pruner = masked(
        prune(
            geometric(sparsity, rounds=rounds),
            score=score,
            budget=budget,
            pattern=pattern,
            every=periodic(every, begin=start, end=end),
        ),
        where,
    )

    def init(params: PyTree) -> LotteryState:
        count, pruning = jnp.zeros((), jnp.int32), pruner.init(params)
        if rewind_to is None:
            return LotteryState(count, pruning, (), ())
        # A copy, because the training loop may donate the parameters.
        early = jax.tree.map(jnp.copy, params)
        return LotteryState(count, pruning, early, Restart(jnp.zeros((), bool)))

    def apply(params: PyTree, state: LotteryState) -> PyTree:
        return pruner.apply(params, state.pruning)

    def update(
        params: PyTree, state: LotteryState, **extras: Any
    ) -> tuple[PyTree, LotteryState]:
        count = state.count + 1
        params, pruning = pruner.update(params, state.pruning, **extras)
        if rewind_to is None:
            return params, LotteryState(count, pruning, (), ())
        rewound = (count > start) & ((count - start) % every == 0) & (count <= end)
        params, early = cond(
            rewound | (count == start),
            lambda: _rewind_or_store(rewound, params, state.early),
            lambda: (params, state.early),
        )
        return params, LotteryState(count, pruning, early, Restart(rewound))

    return Compressor(init=init, apply=apply, update=update)


def _rewind_or_store(
    rewound: jax.Array, params: PyTree, early: PyTree
) -> tuple[PyTree, PyTree]:
    """Return the stored parameters twice if rewound, else the current ones twice."""
    selected = jax.tree.map(lambda p, e: jnp.where(rewound, e, p), params, early)
    return selected, selected
