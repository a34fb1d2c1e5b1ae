# SPDX-License-Identifier: Apache-2.0
"""One network: a float training, and what becomes of it in a row of the study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, Point, operands_only

from .. import old_common as common
from ..data import Split
from ._config import Config
from ._qwix import forward_of
from ._rows import Row

Params = Any
Ranges = dict[str, Any]
Forward = Callable[[Params, Ranges, jax.Array], tuple[jax.Array, Ranges]]
ORDER = 1000  # what is trained on sees the data in another order than before


class Made(NamedTuple):
    """A network as it ships."""

    params: Params  # leaves may be compressed
    ranges: Ranges  # of activations; empty if they are floats


class Runs:
    """Trains and rounds with one split; compiles once a row, not once a seed."""

    def __init__(self, config: Config, model: nn.Module, train: Split) -> None:
        self.config, self.model, self._train = config, model, train
        if len(train) < config.batch_size:
            raise common.RunError(f"no batch of {config.batch_size} in the data.")
        shapes = jax.eval_shape(model.init, jax.random.key(0), train.x[:1])["params"]
        self._axes = jc.weight_axes(self._plain, shapes, train.x[:1])
        self._programs: dict[Any, Any] = {}

    def trained(self, seed: int) -> Params:
        """A float network."""
        return self._fit(
            self._initial(seed), jc.identity(), None, self._plain_forward,
            self.config.rate, epochs=self.config.epochs, seed=seed, key=("",),
        ).params  # fmt: skip

    def made(
        self, row: Row, params: Params, seed: int, rate: float | None = None
    ) -> Made:
        """The network of a row.

        Args:
          row: what to make.
          params: of the trained float network of the seed.
          seed: of everything random.
          rate: learning rate, if not the chosen one.
        """
        if row.start == "after":
            return self._rounded(row, params)
        scratch = row.start == "scratch"
        if scratch:
            params, rate = self._initial(seed), self.config.rate
        rate = rate or self.config.rates[row.setting]
        return self._fit(
            params,
            self._compressor(row),
            row.activations,
            self.forward(row, "train"),
            rate,
            epochs=self.config.epochs if scratch else row.times * self.config.tuning,
            seed=seed if scratch else seed + ORDER,
            key=(row, rate),
        )

    def accuracy(self, row: Row, made: Made, split: Split) -> float:
        """Fraction of right answers, with rounded activations if the row has them."""
        forward = self._once(
            ("accuracy", row.activations, row.qwix),
            lambda: common.compiled(
                self.forward(row, "frozen"), quick=self.config.quick
            ),
        )
        params, right, size = jc.dense(made.params), 0, 1000
        for i in range(0, len(split), size):
            logits, _ = forward(params, made.ranges, split.x[i : i + size])
            right += int((logits.argmax(-1) == split.y[i : i + size]).sum())
        return right / len(split)

    def forward(self, row: Row, mode: str) -> Forward:
        """The function that the row trains (``"train"``) or ships (``"frozen"``)."""
        if row.qwix is not None:
            weights, activations = row.qwix
            fn = self._once(
                row.qwix, lambda: forward_of(self.model, weights, activations)
            )
            return lambda params, ranges, x: (fn(params, x), ranges)
        if row.activations is None:
            return self._plain_forward
        return getattr(self._quantized(row.activations), mode)

    def _rounded(self, row: Row, params: Params) -> Made:
        def rounded(params: Params, x: jax.Array) -> Params:
            extras = {}
            if row.grams:
                extras["stats"] = jc.observe(
                    self._plain, params, [x], jc.program.statistics.gram()
                )
            return jc.compress(self._compressor(row), params, **extras)

        program = self._once(
            ("rounded", row), lambda: common.compiled(rounded, quick=self.config.quick)
        )
        x = jnp.asarray(self._train.x[: self.config.examples])
        return Made(program(params, x), {})

    def _fit(
        self,
        params: Params,
        compressor: jc.Compressor,
        activations: ActivationQuantizer | None,
        forward: Forward,
        rate: float,
        *,
        epochs: int,
        seed: int,
        key: Any,
    ) -> Made:
        """Train; a loop and no scan, in which convolutions are slow on a CPU."""
        steps = epochs * (len(self._train) // self.config.batch_size)
        init, step, finalize = self._once(
            ("fit", *key), lambda: self._program(forward, compressor, rate, steps)
        )
        x, y = self._train.x, self._train.y
        rows = common.order(
            self._train, batch_size=self.config.batch_size, seed=seed, steps=steps
        )
        ranges: Ranges = {}
        if activations is not None:
            quantized = self._quantized(activations)
            ranges = quantized.init(params, x[rows[0]])
        # Copies, since the step takes over the memory of what it is given.
        params, ranges = jax.tree.map(jnp.copy, (params, ranges))
        state = init(params, model_state=ranges)
        for batch in rows:
            state, _ = step(state, {"x": x[batch], "y": y[batch]})
        shipped = finalize(state.params, state.compression)
        return Made(shipped, state.model_state)

    def _initial(self, seed: int) -> Params:
        return common.initial(self.model, self._train, seed, quick=self.config.quick)

    def _compressor(self, row: Row) -> jc.Compressor:
        return jc.identity() if row.compressor is None else row.compressor(self._axes)

    def _quantized(self, way: ActivationQuantizer) -> Any:
        image = operands_only(ActivationQuantizer(Int(8, symmetric=False)))
        first = "Conv_0/kernel/input"
        others = operands_only(way)

        def policy(point: Point) -> ActivationQuantizer | None:
            return image(point) if point.name == first else others(point)

        return jc.quantize_activations(self._plain, policy)

    def _plain(self, params: Params, x: jax.Array) -> Any:
        return self.model.apply({"params": params}, x)

    def _plain_forward(
        self, params: Params, ranges: Ranges, x: jax.Array
    ) -> tuple[jax.Array, Ranges]:
        return self._plain(params, x), ranges

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._programs:
            self._programs[key] = make()
        return self._programs[key]

    def _program(
        self, forward: Forward, compressor: jc.Compressor, rate: float, steps: int
    ) -> Any:
        def loss(
            params: Params, batch: dict[str, jax.Array], *, model_state: Ranges
        ) -> tuple[jax.Array, jc.Aux]:
            logits, ranges = forward(params, model_state, batch["x"])
            each = optax.losses.softmax_cross_entropy_with_integer_labels(
                logits, batch["y"]
            )
            return each.mean(), jc.Aux(model_state=ranges)

        def adam(rate: float) -> optax.GradientTransformation:
            return optax.adam(optax.cosine_decay_schedule(rate, steps))

        learned = adam(self.config.learned * rate)
        quick = self.config.quick
        init, step = jc.train_step(
            loss, adam(rate), compressor, learned_tx=learned, donate=True
        )
        finalize = common.compiled(compressor.finalize, quick=quick)
        if quick:
            step = common.compiled(step, quick=True)
        return common.compiled(init, quick=quick), step, finalize
