# SPDX-License-Identifier: Apache-2.0
"""Lottery tickets: prune what was trained, rewind what is left, train it again."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._combine import masked
from ..._compressor import Compressor, PyTree, Restart
from ..._select import Where, is_weight
from .._prune import prune
from ..budgets._sparsity import Budget, global_
from ..patterns._protocol import Pattern, unstructured
from ..schedules import geometric, periodic
from ..scores._immediate import Score, magnitude


class LotteryState(NamedTuple):
    """State of iterative pruning with rewinding."""

    count: jax.Array  # int32 []: updates so far
    pruning: PyTree  # state of the pruner; its count is that of rounds
    early: PyTree  # like params: what is rewound to; empty without rewinding
    restart: Restart | tuple[()]

    @property
    def masks(self) -> PyTree:
        """Bool arrays like the selected parameters, True where the weight is kept."""
        return self.pruning.masks


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
    """Prune iteratively, rewinding what is left to where it stood early in training.

    Training goes to step ``rewind_to``, whose parameters are stored, and on for ``every``
    steps. Then, ``rounds`` times: a share of the weights that are left is pruned, all
    parameters (biases and norms too) go back to the stored ones, the optimizer starts
    anew (``train_step`` sees to it; a learning-rate schedule starts over), and training
    goes on for ``every`` steps. In all, ``rewind_to + (rounds + 1) * every`` steps. What is
    no parameter, such as batch statistics, is not rewound. The update that ends a round
    rewinds: what the round has trained is what its last step was given, and one step.

    Args:
      sparsity: after the last round, in [0, 1); every round prunes the same share of
        what is left, 20 % in the paper: ``1 - 0.8**rounds``.
      rounds: of pruning.
      every: steps of training in a round.
      rewind_to: the step whose parameters are stored; 0 for the initial ones; None to
        train on without rewinding (iterative magnitude pruning).
      score: which weights matter; of parameters alone.
      budget: how the sparsity is spread over leaves.
      pattern: which weights go together.
      where: which leaves are pruned.

    Raises:
      ValueError: for numbers out of their range; in ``init``, if nothing is selected.

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
    if rounds < 1 or every < 1 or start < 0:
        raise ValueError(
            f"rounds={rounds}, every={every}, rewind_to={rewind_to}: 1 or more rounds of "
            "1 or more steps, rewound to step 0 or a later one."
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
        # A copy: the loop may donate its own.
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
        params, early = lax.cond(
            rewound | (count == start),
            lambda: _exchange(rewound, params, state.early),
            lambda: (params, state.early),
        )
        return params, LotteryState(count, pruning, early, Restart(rewound))

    return Compressor(init=init, apply=apply, update=update)


def _exchange(
    rewound: jax.Array, params: PyTree, early: PyTree
) -> tuple[PyTree, PyTree]:
    """Both as the stored parameters if rewound, else both as the present ones."""
    chosen = jax.tree.map(lambda p, e: jnp.where(rewound, e, p), params, early)
    return chosen, chosen
