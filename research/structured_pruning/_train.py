# SPDX-License-Identifier: Apache-2.0
"""Training dense networks, pruning them in every way, and training what is left."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax

import jaxcompress as jc

from .. import common
from ..data import Split
from ._config import Config
from ._network import ResNet, as_wide
from ._rows import (
    DENSE,
    DEPTH,
    MASKED,
    ON,
    SCRATCH,
    UNTUNED,
    WIDTH,
    WIDTHS_OF,
    as_fast,
    macs,
    without_blocks,
    without_channels,
)

Variables = Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to train: two functions of the same variables, and their first values.

    Attributes:
      evaluate: ``(variables, x) -> logits``.
      train: ``(variables, x) -> (logits, {"batch_stats": ...})``.
      variables: to start from.
      compressor: of the parameters; None trains them as they are.
    """

    evaluate: Callable[..., Any]
    train: Callable[..., Any]
    variables: Variables
    compressor: jc.Compressor | None = None

    def shrunk(self, plan: jc.structured.Plan, x: jax.Array) -> Network:
        """The same without what a plan removes, after checking that this is exact."""
        jc.structured.verify(self.evaluate, self.variables, plan, x)
        return Network(
            jc.shrink(self.evaluate, plan),
            jc.shrink(self.train, plan),
            jc.structured.slice_params(self.variables, plan),
        )

    def masked(self) -> Variables:
        """The variables as the network sees them before it is trained."""
        params = self.variables["params"]
        if self.compressor is not None:
            params = jc.compress(self.compressor, params)
        return {**self.variables, "params": params}

    def macs(self, x: jax.Array) -> int:
        """Multiply-accumulates for one image, those by a zero among them."""
        return macs(self.evaluate, self.variables, x)


class Runs(common.Trainer):
    """Trains and prunes with one split."""

    def __init__(self, config: Config, model: ResNet, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model

    def trained(self, seed: int) -> Variables:
        """The dense network of a seed."""
        return self.fitted(DENSE, 1.0, seed)[0]

    def fitted(
        self, name: str, factor: float, seed: int, rate: float | None = None
    ) -> tuple[Variables, float]:
        """A row of a seed, trained, and the seconds that its steps took."""

        def fit() -> tuple[Variables, float]:
            config = self.config
            network = self.network(name, factor, seed)
            if name == UNTUNED:
                return network.variables, 0.0
            first = {DENSE: config.epochs, SCRATCH: config.epochs + config.more}
            default = config.rate if name in first else config.later_rate
            return self._fit(
                network,
                rate or default,
                round(first.get(name, config.more) * self.per_epoch),
                seed if name in first else 1000 + seed,
            )

        # Only the dense network is asked for again.
        return self.once(("fitted", seed), fit) if name == DENSE else fit()

    def network(self, name: str, factor: float, seed: int) -> Network:
        """What a row trains."""
        make = partial(self._network, name, factor, seed)
        return self.once(("network", name, factor, seed), make)

    def plan(self, name: str, factor: float, seed: int) -> jc.structured.Plan:
        """What a method removes."""

        def make() -> jc.structured.Plan:
            dense, x = self._as_trained(seed), self.x[: self.config.examples]
            fn, variables = dense.evaluate, dense.variables
            if name == UNTUNED:
                return self.plan(WIDTHS_OF, factor, seed)
            if name == DEPTH:
                return without_blocks(fn, variables, x, factor)
            if name == WIDTH:
                blocks = self.network(DEPTH, factor, seed)
                at = partial(self.plan, WIDTHS_OF, seed=seed)
                return as_fast(at, lambda plan: self._time_ratio(dense, plan, blocks))
            groups = jc.trace_axes(fn, variables, x[:1])
            grads = self.once(("grads", seed), lambda: self._example_grads(dense))
            return without_channels(groups, name, variables, grads, factor, seed)

        return self.once(("plan", name, factor, seed), make)

    def accuracy(self, network: Network, variables: Variables, split: Split) -> float:
        """Fraction of right answers."""
        evaluate = jax.jit(network.evaluate)
        size = self.config.batches[1]  # Compiled for the times as well.
        logits = common.in_chunks(lambda x: evaluate(variables, x), size, split.x)
        return common.right(np.asarray(logits), split)

    def _network(self, name: str, factor: float, seed: int) -> Network:
        if name == DENSE:
            return self._built(self.model, seed)
        if name == SCRATCH:
            plan = self.plan(WIDTHS_OF, factor, seed)
            return self._built(as_wide(self.model, plan), seed)
        dense = self._as_trained(seed)
        if name == ON:
            return dense
        if name == MASKED:
            budget = jc.prune.budgets.global_
            pruner = jc.magnitude_pruning(1 - 1 / factor, budget=budget)
            return dataclasses.replace(dense, compressor=pruner)
        return dense.shrunk(self.plan(name, factor, seed), self.x[:16])

    def _time_ratio(
        self, dense: Network, plan: jc.structured.Plan, other: Network
    ) -> float:
        """Measured time without what a plan removes, divided by another network's."""
        x = self.x[: self.config.batches[1]]
        cut = dense.shrunk(plan, self.x[:16])
        networks = {"other": other, "cut": cut}
        return common.interleaved(
            {
                name: partial(jax.jit(net.evaluate), net.variables, x)
                for name, net in networks.items()
            },
            self.config.rounds,
        )["cut"].ratio

    def _built(self, model: ResNet, seed: int) -> Network:
        def evaluate(variables: Variables, x: jax.Array) -> Any:
            return model.apply(variables, x)

        def train(variables: Variables, x: jax.Array) -> Any:
            return model.apply(variables, x, train=True, mutable=["batch_stats"])

        def make() -> Network:
            init = common.compiled(model.init, quick=self.quick)
            variables = init(jax.random.key(seed), self.x[:1])
            return Network(evaluate, train, variables)

        return self.once(("built", model, seed), make)

    def _as_trained(self, seed: int) -> Network:
        variables = self.trained(seed)
        return dataclasses.replace(self._built(self.model, seed), variables=variables)

    def _example_grads(self, network: Network) -> Any:
        def loss(variables: Variables, x: jax.Array, y: jax.Array) -> jax.Array:
            return common.cross_entropy(network.evaluate(variables, x[None]), y[None])

        seen = slice(self.config.examples)
        grads = jax.jit(jax.vmap(jax.grad(loss), (None, 0, 0)))
        return grads(network.variables, self.x[seen], self.y[seen])

    def _fit(
        self, network: Network, rate: float, steps: int, seed: int
    ) -> tuple[Variables, float]:
        def loss(params: Any, batch: Any, model_state: Any) -> Any:
            variables = {"params": params, "batch_stats": model_state}
            logits, new = network.train(variables, batch["x"])
            aux = jc.Aux(model_state=new["batch_stats"])
            return common.cross_entropy(logits, batch["y"]), aux

        schedule = optax.cosine_decay_schedule(rate, steps)
        compressor = network.compressor or jc.identity()
        init, step = jc.train_step(loss, optax.adam(schedule), compressor)
        step = common.compiled(step, quick=self.quick)
        first = network.variables
        state = init(first["params"], model_state=first["batch_stats"])
        order = self.order(seed, steps)
        batch = {"x": self.split.x[order[0]], "y": self.split.y[order[0]]}
        ready = step.lower(state, batch).compile()
        start = time.monotonic()
        state = jax.block_until_ready(common.loop(ready, state, order, self.split))
        seconds = time.monotonic() - start
        params = compressor.finalize(state.params, state.compression)
        return {"params": params, "batch_stats": state.model_state}, seconds
