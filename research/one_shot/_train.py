# SPDX-License-Identifier: Apache-2.0
"""Training a dense network, looking at it, and pruning it once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax

import jaxcompress as jc

from .. import common
from ..data import Split
from ._config import Config, Setting
from ._rows import METHODS

Params = Any


class Network:
    """A trained dense network, and what the pruners know of it, looked up when asked."""

    def __init__(self, params: Params, look: Callable[[str, int, Params], Any]) -> None:
        self.params, self._look = params, look
        self._once = common.Once()

    def statistics(self, what: str, block: int) -> Any:
        """Statistics or Fisher blocks: a dict with the argument of ``update``."""
        key = what, block if what == "fisher" else 0
        return self._once(key, lambda: self._look(*key, self.params))


class Runs(common.Trainer):
    """Trains and prunes with one split; compiles once a method, not once a seed."""

    def __init__(self, config: Config, model: common.Perceptron, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model

    def trained(self, seed: int) -> Network:
        """A dense network of a seed."""
        steps = self.config.epochs * self.per_epoch

        def train(
            params: Params, rows: jax.Array, x: jax.Array, y: jax.Array
        ) -> Params:
            schedule = optax.cosine_decay_schedule(self.config.rate, steps)
            init, step = jc.train_step(
                common.loss_of(self.model), optax.adam(schedule), jc.identity()
            )
            return common.scan(step, init(params), rows, x, y).params

        def network() -> Network:
            program = self.compiled("train", train)
            order = self.order(seed, steps)
            params = program(self.initial(self.model, seed), order, self.x, self.y)
            return Network(params, self._look)

        return self.once(("trained", seed), network)

    def pruned(
        self, network: Network, name: str, sparsity: float, setting: Setting
    ) -> Params:
        """The network after one method, with zeros."""
        method = METHODS[name]

        def prune(
            params: Params, statistics: Any, sparsity: Any, damping: Any
        ) -> Params:
            compressor = method.compressor(sparsity, damping, setting.block)
            return jc.compress(compressor, params, **statistics)

        statistics = (
            network.statistics(method.needs, setting.block) if method.needs else {}
        )
        program = self.compiled((name, setting.block), prune)
        return program(network.params, statistics, sparsity, setting.damping)

    def _look(self, what: str, block: int, params: Params) -> Any:
        """What a pruner is given beside the parameters."""

        def forward(params: Params, x: jax.Array) -> Any:
            return self.model.apply({"params": params}, x)

        def look(params: Params, x: jax.Array, y: jax.Array) -> Any:
            if what == "fisher":
                loss = common.loss_of(self.model)
                batch = {"x": x, "y": y}
                return {
                    "fisher": jc.prune.scores.fisher_blocks(loss, params, batch, block)
                }
            statistic = {
                "gram": jc.program.statistics.gram,
                "moments": jc.program.statistics.moments,
            }[what]
            return {"stats": jc.observe(forward, params, [x], statistic())}

        # The data are in no order, but for text.
        shown = slice(self.config.examples)
        program = self.compiled(("look", what, block), look)
        return program(params, self.x[shown], self.y[shown])
