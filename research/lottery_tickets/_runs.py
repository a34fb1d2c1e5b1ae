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
from ._config import Config
from ._watch import held, watched


class Runs:
    """Trains on one split; compiles once a way to rewind."""

    def __init__(self, config: Config, model: common.Perceptron, train: Split) -> None:
        self.config, self.model, self._train = config, model, train
        per_epoch = len(train) // config.batch_size
        if not per_epoch:
            raise common.RunError(f"no batch of {config.batch_size} in the data.")
        self.steps = config.epochs * per_epoch
        self.early = round(config.early * per_epoch)
        self._x, self._y = jnp.asarray(train.x), jnp.asarray(train.y)
        self._iterative: dict[int | None, Callable[..., Any]] = {}
        self._fixed = common.compiled(self._train_fixed, quick=config.quick)
        self._once: dict[jc.prune.budgets.Budget, Callable[..., Any]] = {
            budget: common.compiled(_pruned_once(budget), quick=config.quick)
            for budget in (jc.prune.budgets.global_, jc.prune.budgets.erk)
        }

    def iterative(self, seed: int, rewind_to: int | None) -> Any:
        """Prune in rounds.

        Args:
          seed: of the initial parameters and the order of the data.
          rewind_to: as ``jc.lottery_ticket`` takes it.

        Returns:
          What every round was trained to, the dense first: parameters with one more axis.
        """
        if rewind_to not in self._iterative:
            program = self._program(rewind_to)
            self._iterative[rewind_to] = common.compiled(
                program, quick=self.config.quick
            )
        rounds, start = self.config.rounds + 1, rewind_to or 0
        rows = self._order(seed, start + rounds * self.steps)
        later = rows[start:].reshape(rounds, self.steps, -1)
        params = self.initial(seed)
        return self._iterative[rewind_to](params, rows[:start], later, self._x, self._y)

    def initial(self, seed: int) -> Any:
        """Random parameters."""
        return common.initial(self.model, self._train, seed, quick=self.config.quick)

    def fixed(self, ticket: Any, params: Any, seed: int) -> Any:
        """Train parameters for one round with the zeros of a ticket."""
        rows = self._order(seed, self.steps)
        return self._fixed(ticket, params, rows, self._x, self._y)

    def pruned_once(
        self, params: Any, sparsity: float, budget: jc.prune.budgets.Budget
    ) -> Any:
        """Zero the smallest weights, of all or as many of each leaf as ERK says."""
        return self._once[budget](params, jnp.float32(sparsity))

    def _order(self, seed: int, steps: int) -> Any:
        return common.order(
            self._train, batch_size=self.config.batch_size, seed=seed, steps=steps
        )

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
