# SPDX-License-Identifier: Apache-2.0
"""One training: a method, a budget, a sparsity and a seed, as one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxcompress as jc

from .. import common
from ..data import Split
from ._config import Config, Exchange
from ._rows import METHODS, Method, Traced, dense, either


class Runs(common.Trainer):
    """Trains on one split; compiles once a method, not once a sparsity or seed."""

    def __init__(self, config: Config, model: common.Perceptron, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model
        self.steps = config.epochs * self.per_epoch

    def dense(self, seed: int, *, rate: float | None = None) -> Any:
        """Train without pruning; returns parameters, and None for masks."""
        return self.once(
            ("dense", seed, rate),
            lambda: self._run("dense", dense, 1, seed, rate, 0.0, True, 0.0),
        )

    def sparse(
        self,
        name: str,
        seed: int,
        *,
        sparsity: float,
        erk: bool,
        rate: float | None = None,
        exchange: Exchange | None = None,
    ) -> Any:
        """Train with a method; returns parameters with zeros, and the masks.

        Args:
          name: of the method.
          seed: of the initial parameters, the masks and the order of the data.
          sparsity: fraction of the weights that are zero in the end.
          erk: ERK budgets, else uniform ones.
          rate: learning rate, if not that of the settings.
          exchange: drop fraction and period, if not those of the settings.
        """
        own = {"RigL": self.config.rigl, "SET": self.config.set}
        default = own.get(name, Exchange(0.0, self.config.ramp_every))
        drop, every = dataclasses.astuple(exchange or default)
        return self._run(name, METHODS[name], every, seed, rate, sparsity, erk, drop)

    def pruned(self, seed: int, *, sparsity: float, erk: bool) -> Any:
        """The dense network, pruned after its last step; and its masks."""

        def prune(params: Any, sparsity: jax.Array, erk: jax.Array) -> Any:
            pruner = jc.magnitude_pruning(
                sparsity,  # pyright: ignore[reportArgumentType]
                budget=either(erk),
            )
            state = pruner.init(params)
            params, state = pruner.update(params, state)
            return pruner.finalize(params, state), state.masks

        program = self.compiled("prune", prune)
        return program(self.dense(seed)[0], jnp.float32(sparsity), jnp.asarray(erk))

    def _run(
        self,
        name: str,
        method: Method,
        every: int,
        seed: int,
        rate: float | None,
        sparsity: float,
        erk: bool,
        drop: float,
    ) -> Any:
        program = self.compiled((name, every), self._program(method, every))
        traced = Traced(
            rate=jnp.float32(self.config.rate if rate is None else rate),
            sparsity=jnp.float32(sparsity),
            erk=jnp.asarray(erk),
            drop=jnp.float32(drop),
            key=jax.random.fold_in(jax.random.key(seed), 1),
        )
        order = self.order(seed, self.steps)
        return program(traced, self.initial(self.model, seed), order, self.x, self.y)

    def _program(self, method: Method, every: int) -> Callable[..., Any]:
        def program(
            t: Traced, params: Any, rows: jax.Array, x: jax.Array, y: jax.Array
        ) -> Any:
            compressor = method(self.config, t, every, self.steps)
            schedule = optax.cosine_decay_schedule(t.rate, self.steps)  # pyright: ignore[reportArgumentType]
            init, step = jc.train_step(
                common.loss_of(self.model), optax.adam(schedule), compressor
            )
            state = common.scan(step, init(params), rows, x, y)
            masks = getattr(state.compression, "masks", None)  # None: dense
            return compressor.finalize(state.params, state.compression), masks

        return program
