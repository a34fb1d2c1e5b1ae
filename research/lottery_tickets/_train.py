# SPDX-License-Identifier: Apache-2.0
"""The trainings: iterative pruning as one program, and one with given zeros."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import jaxcompress as jc

from .. import common
from ..data import Split
from ._compressors import held, watched
from ._config import Config


class Runs(common.Trainer):
    """Trains on one split; compiles once a way to rewind."""

    def __init__(self, config: Config, model: common.Perceptron, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model
        self.steps = config.epochs * self.per_epoch
        self.early = round(config.early * self.per_epoch)

    def iterative(self, seed: int, rewind_to: int | None) -> Any:
        """Prune in rounds.

        Args:
          seed: of the initial parameters and the order of the data.
          rewind_to: as ``jc.lottery_ticket`` takes it.

        Returns:
          What every round was trained to, the dense first: parameters with one more axis.
        """
        program = self.compiled(("iterative", rewind_to), self._program(rewind_to))
        rounds, start = self.config.rounds + 1, rewind_to or 0
        order = self.order(seed, start + rounds * self.steps)
        later = order[start:].reshape(rounds, self.steps, -1)
        return program(
            self.initial(self.model, seed), order[:start], later, self.x, self.y
        )

    def fixed(self, ticket: Any, params: Any, seed: int) -> Any:
        """Train parameters for one round with the zeros of a ticket."""
        program = self.compiled("fixed", self._train_fixed)
        return program(ticket, params, self.order(seed, self.steps), self.x, self.y)

    def pruned_once(
        self, params: Any, sparsity: float, budget: jc.prune.budgets.Budget
    ) -> Any:
        """Zero the smallest weights, of all or as many of each leaf as ERK says."""
        program = self.compiled(("once", budget), _pruned_once(budget))
        return program(params, jnp.float32(sparsity))

    def _program(self, rewind_to: int | None) -> Callable[..., Any]:
        config = self.config
        ticket = jc.lottery_ticket(
            config.sparsity(config.rounds),
            rounds=config.rounds,
            every=self.steps,
            rewind_to=rewind_to,
        )
        init, step = self._step(watched(ticket))

        def program(
            params: Any, early: jax.Array, rows: jax.Array, x: jax.Array, y: jax.Array
        ) -> Any:
            def one(state: jc.TrainState, rows: jax.Array) -> tuple[Any, Any]:
                state = common.scan(step, state, rows, x, y)
                return state, state.compression[1]

            state = common.scan(step, init(params), early, x, y)
            return lax.scan(one, state, rows)[1]

        return program

    def _train_fixed(
        self, ticket: Any, params: Any, rows: jax.Array, x: jax.Array, y: jax.Array
    ) -> Any:
        compressor = held(ticket)
        init, step = self._step(compressor)
        state = common.scan(step, init(params), rows, x, y)
        return compressor.finalize(state.params, state.compression)

    def _step(self, compressor: jc.Compressor) -> tuple[Any, Any]:
        tx = optax.adam(self.config.rate)
        return jc.train_step(common.loss_of(self.model), tx, compressor)


def _pruned_once(budget: jc.prune.budgets.Budget) -> Callable[..., Any]:
    def prune(params: Any, sparsity: jax.Array) -> Any:
        pruner = jc.magnitude_pruning(
            sparsity,  # pyright: ignore[reportArgumentType]
            budget=budget,
        )
        return jc.compress(pruner, params)

    return prune
