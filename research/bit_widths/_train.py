# SPDX-License-Identifier: Apache-2.0
"""The network, its float training, and what becomes of it in a row of the study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, operands_only

from .. import common
from ..data import Split
from ._config import Config
from ._rows import SMALL, Row

Params = Any
Ranges = dict[str, Any]
Forward = Callable[[Params, Ranges, jax.Array], tuple[jax.Array, Ranges]]
ORDER = 1000  # what is trained on sees the data in another order than before


class ConvNet(nn.Module):
    """Strided convolutions and a dense layer.

    A norm follows every product, the last one too: what follows a norm does not depend on
    how large the weights before it are, so that weights of plus and minus 1 can be
    compared with others.
    """

    classes: int
    widths: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images ``(n, h, w, c)`` to logits ``(n, classes)``."""
        for i, width in enumerate(self.widths):
            size, stride = ((3, 3), (2, 2)) if i else ((5, 5), (3, 3))
            x = nn.Conv(width, size, strides=stride, use_bias=False)(x)
            x = nn.relu(nn.LayerNorm()(x))
        x = nn.Dense(self.classes)(x.reshape(len(x), -1))
        return nn.LayerNorm()(x)


def narrow(nbytes: int, model: ConvNet, x: np.ndarray) -> nn.Module:
    """The widest network of a kind whose float32 parameters take no more bytes."""
    shrunk = (
        model.clone(widths=tuple(max(1, round(share * w)) for w in model.widths))
        for share in np.linspace(1, 0, 100, endpoint=False)
    )
    return common.no_more_bytes(shrunk, nbytes, x[:1])


class Network(NamedTuple):
    """A network as it ships."""

    params: Params  # leaves may be compressed
    ranges: Ranges  # of activations; empty if they are floats


class Runs(common.Trainer):
    """Trains and rounds with one split; compiles once a row, not once a seed."""

    def __init__(self, config: Config, model: nn.Module, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model
        shapes = jax.eval_shape(model.init, jax.random.key(0), train.x[:1])["params"]
        self._axes = jc.weight_axes(self._plain, shapes, train.x[:1])

    def float_network(self, seed: int) -> Params:
        """A network that nothing is rounded in, which most rows start from."""

        def network() -> Params:
            start, epochs = self.initial(self.model, seed), self.config.epochs
            row = Row("", "32", lambda axes: jc.identity())
            return self._fit(row, start, self.config.rate, epochs, seed).params

        return self.once(("float", seed), network)

    def of_row(self, row: Row, seed: int, rate: float | None = None) -> Network:
        """The network of a row.

        Args:
          row: what to make.
          seed: of everything random.
          rate: learning rate, if not the chosen one.
        """
        if row.start == "after":
            return self._rounded(row, self.float_network(seed))
        if row.start == "scratch":
            start, epochs = self.initial(self.model, seed), self.config.epochs
            epochs += self.config.tuning if row.method == SMALL else 0
            return self._fit(row, start, self.config.rate, epochs, seed)
        rate = rate or self.config.rates[row.setting]
        epochs = row.times * self.config.tuning
        return self._fit(row, self.float_network(seed), rate, epochs, seed + ORDER)

    def accuracy(self, row: Row, network: Network, split: Split) -> float:
        """Fraction of right answers, with rounded activations if the row has them."""
        forward = self.once(
            ("accuracy", row.activations, row.qwix),
            lambda: common.compiled(self.forward(row, "frozen"), quick=self.quick),
        )
        params = jc.dense(network.params)
        logits = common.in_chunks(
            lambda x: forward(params, network.ranges, x)[0], 1000, split.x
        )
        return common.right(logits, split)

    def forward(self, row: Row, mode: str) -> Forward:
        """The function that the row trains (``"train"``) or ships (``"frozen"``)."""
        if row.qwix is not None:
            weights, activations = row.qwix
            by_qwix = self.once(
                row.qwix, lambda: _by_qwix(self.model, weights, activations)
            )
            return lambda params, ranges, x: (by_qwix(params, x), ranges)
        if row.activations is None:
            return lambda params, ranges, x: (self._plain(params, x), ranges)
        return getattr(self._quantized(row.activations), mode)

    def _rounded(self, row: Row, params: Params) -> Network:
        def rounded(params: Params, x: jax.Array) -> Params:
            extras = {}
            if row.grams:
                extras["stats"] = jc.observe(
                    self._plain, params, [x], jc.program.statistics.gram()
                )
            return jc.compress(self._compressor(row), params, **extras)

        program = self.compiled(("rounded", row), rounded)
        return Network(program(params, self.x[: self.config.examples]), {})

    def _fit(
        self, row: Row, params: Params, rate: float, epochs: int, seed: int
    ) -> Network:
        steps = epochs * self.per_epoch
        init, step, finalize = self.once(
            ("fit", row, rate, steps), lambda: self._program(row, rate, steps)
        )
        order, ranges = self.order(seed, steps), {}
        if row.activations is not None:
            quantized = self._quantized(row.activations)
            ranges = quantized.init(params, self.split.x[order[0]])
        # Copies, since the step takes over the memory of what it is given.
        params, ranges = jax.tree.map(jnp.copy, (params, ranges))
        state = init(params, model_state=ranges)
        state = common.loop(step, state, order, self.split)
        return Network(finalize(state.params, state.compression), state.model_state)

    def _program(self, row: Row, rate: float, steps: int) -> Any:
        forward, compressor = self.forward(row, "train"), self._compressor(row)

        def loss(
            params: Params, batch: dict[str, jax.Array], *, model_state: Ranges
        ) -> tuple[jax.Array, jc.Aux]:
            logits, ranges = forward(params, model_state, batch["x"])
            loss = common.cross_entropy(logits, batch["y"])
            return loss, jc.Aux(model_state=ranges)

        def adam(rate: float) -> optax.GradientTransformation:
            return optax.adam(optax.cosine_decay_schedule(rate, steps))

        init, step = jc.train_step(
            loss,
            adam(rate),
            compressor,
            learned_tx=adam(self.config.learned * rate),
            donate=True,
        )
        if self.quick:
            step = common.compiled(step, quick=True)
        init, finalize = (
            common.compiled(fn, quick=self.quick) for fn in (init, compressor.finalize)
        )
        return init, step, finalize

    def _compressor(self, row: Row) -> jc.Compressor:
        return jc.identity() if row.compressor is None else row.compressor(self._axes)

    def _quantized(self, quantizer: ActivationQuantizer) -> Any:
        image = ActivationQuantizer(Int(8, symmetric=False))
        policy = {"Conv_0/kernel/input": image, "*": operands_only(quantizer)}
        return jc.quantize_activations(self._plain, policy)

    def _plain(self, params: Params, x: jax.Array) -> Any:
        return self.model.apply({"params": params}, x)


def _by_qwix(
    model: nn.Module, weights: str, activations: str | None
) -> Callable[..., Any]:
    """``(params, x) -> logits`` of the network as qwix quantizes it.

    It replaces the class of the module, and simulates in training and after it. Its
    storage of weights is not used: it refuses convolutions of which only the weights
    are quantized. What it computes is the same.

    Args:
      model: a Linen module.
      weights: qwix's type, such as ``"int4"``; a scale for each output.
      activations: likewise, or None.
    """
    import qwix

    rule = qwix.QtRule(weight_qtype=weights, act_qtype=activations)
    quantized: Any = qwix.quantize_model(model, qwix.QtProvider([rule]))
    return lambda params, x: quantized.apply({"params": params}, x)
