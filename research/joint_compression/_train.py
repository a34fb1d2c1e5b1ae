# SPDX-License-Identifier: Apache-2.0
"""A stage of training as two compiled functions, whatever its length and settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax

import jaxcompress as jc
from jaxcompress import quantize

from .. import old_common as common
from ._config import Config

Params = Any
CHANNELS = jc.PerChannel(axes=jc.Axes(outputs=-1))
# How scales start, and what becomes of them. A learned one has one start: that of its
# paper counts pruned weights too, the other does not mind zeros. It is searched for once,
# since in a step it would be searched for again and again.
SCALES: dict[str, tuple[quantize.scales.AnyScale, quantize.scales.AnyScale]] = {
    "": (quantize.scales.absmax, quantize.scales.absmax),
    "LSQ": (quantize.scales.lsq(), quantize.scales.lsq()),
    "LSQ from mse": (
        quantize.scales.lsq(start=quantize.scales.mse()),
        quantize.scales.lsq(),
    ),
    "mse": (quantize.scales.mse(), quantize.scales.mse()),
}


class Knobs(NamedTuple):
    """What differs between stages that are compiled once: numbers, all traced."""

    rate: float  # learning rate at the start
    weight: float  # of the teacher
    hot: float  # temperature at the first step
    cold: float  # and at the last
    bits: int  # of weights, where they are quantized
    pruned: float  # sparsity at the first step
    first: int  # row of the order of the data
    steps: int


class Data(NamedTuple):
    """Of the training split; arguments of what is compiled, not constants in it."""

    x: jax.Array  # float32 (n, h, w, c)
    y: jax.Array  # int32 (n,)
    teacher: jax.Array  # float32 (n, classes): logits, once for a seed


class Programs(NamedTuple):
    """Both are compiled."""

    init: Callable[[Params, Knobs], jc.TrainState]
    fit: Callable[..., jc.TrainState]  # (state, order, data, knobs)


class Kind(NamedTuple):
    """What a stage does; each kind is compiled once."""

    prunes: bool
    scale: str  # a name of ``SCALES``; "" if it does not quantize
    squared: bool = False  # whether logits are compared and not distributions


def compressor(
    config: Config, kind: Kind, *, sparsity: Any, bits: Any, starts: bool = False
) -> jc.Compressor:
    """Prune, then quantize what is left; each may be nothing."""
    pruner = jc.magnitude_pruning(
        sparsity, budget=jc.prune.budgets.erk, every=config.every
    )
    scale = SCALES[kind.scale][0 if starts else 1]
    quantizer = jc.weight_quantization(bits=bits, scale=scale, granularity=CHANNELS)
    if not isinstance(bits, int):
        # Codes have a fixed width, and are made after the training, not in it.
        quantizer = dataclasses.replace(quantizer, finalize=quantizer.apply)
    nothing = jc.identity()
    return jc.chain(
        pruner if kind.prunes else nothing, quantizer if kind.scale else nothing
    )


def programs(config: Config, model: nn.Module, kind: Kind) -> Programs:
    """Compile for one kind of stage: all lengths, rates, bits and temperatures of it."""

    def loss(
        params: Params, batch: dict[str, jax.Array], weight: Any, *, temperature: Any
    ) -> dict[str, jax.Array]:
        logits: Any = model.apply({"params": params}, batch["x"])
        labels = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["y"]
        )
        if kind.squared:
            apart = jc.distill.squared_logits(_centered(logits), _centered(batch["t"]))
            teacher = apart / 2
        else:
            teacher = jc.distill.kl(logits, batch["t"], temperature=temperature)
        return {
            "labels": (1 - weight) * labels.mean(),
            "teacher": weight * teacher.mean(),
        }

    def training(knobs: Knobs, *, starts: bool) -> tuple[Any, Any]:
        # Of numbers that are traced, which schedules of optax would look at.
        def done(count: Any) -> jax.Array:
            return jnp.asarray(count, jnp.float32) / knobs.steps

        def adam(factor: float) -> optax.GradientTransformation:
            def decayed(count: Any) -> jax.Array:
                return factor * knobs.rate * (1 + jnp.cos(jnp.pi * done(count))) / 2

            return optax.adam(decayed)

        def sparsity(count: Any) -> jax.Array:
            left = (1 - jnp.minimum(done(count) / config.ramp, 1)) ** 3
            return config.sparsity + (knobs.pruned - config.sparsity) * left

        def temperature(count: Any) -> jax.Array:
            return knobs.hot * (knobs.cold / knobs.hot) ** done(count)

        small = compressor(
            config, kind, sparsity=sparsity, bits=knobs.bits, starts=starts
        )
        return jc.train_step(
            loss,
            adam(1.0),
            small,
            learned_tx=adam(config.learned),
            schedules={"temperature": temperature},
        )

    def init(params: Params, knobs: Knobs) -> jc.TrainState:
        return training(knobs, starts=True)[0](params)

    def fit(
        state: jc.TrainState, order: jax.Array, data: Data, knobs: Knobs
    ) -> jc.TrainState:
        _, step = training(knobs, starts=False)

        def body(i: jax.Array, state: jc.TrainState) -> jc.TrainState:
            rows = order[knobs.first + i]
            batch = {"x": data.x[rows], "y": data.y[rows], "t": data.teacher[rows]}
            return step(state, batch, knobs.weight)[0]

        return lax.fori_loop(0, knobs.steps, body, state)

    return Programs(
        common.compiled(init, quick=config.quick),
        common.compiled(fit, quick=config.quick),
    )


def _centered(logits: jax.Array) -> jax.Array:
    return logits - jnp.mean(logits, -1, keepdims=True)
