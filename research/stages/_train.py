# SPDX-License-Identifier: Apache-2.0
"""Stages of training as compiled functions, and networks as the stages of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

import jaxcompress as jc
from jaxcompress import quantize

from .. import common
from ..data import Split
from ._config import SIX, Basis, Setting
from ._rows import LABELS, STAGES, Stage, Teaching

Params = Any
ORDER = 1000  # what is trained on sees the data in another order than before
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


class Kind(NamedTuple):
    """What a stage does; each kind is compiled once."""

    prunes: bool
    scale: str  # a name of ``SCALES``; "" if it does not quantize
    squared: bool = False  # whether logits are compared and not distributions


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


class Runs(common.Trainer):
    """Trains one network on one split; compiles once a kind of stage."""

    def __init__(self, config: Basis, model: common.Perceptron, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self.model = config, model
        steps = config.tuning * self.per_epoch
        self.tuning = steps - steps % SIX  # steps of all stages of a method together
        if not self.tuning:
            raise common.RunError(f"fewer than {SIX} batches of data for the stages.")

    def float_network(self, seed: int) -> Params:
        """What the methods start from."""
        return self.once(("float", seed), lambda: self.trained(seed))

    def teacher(self, seed: int) -> jax.Array:
        """Logits of the float network on the training split: ``(n, classes)``."""

        def logits() -> jax.Array:
            network = self.float_network(seed)
            return jnp.asarray(common.logits(self.model, network, self.split.x))

        return self.once(("teacher", seed), logits)

    def trained(
        self,
        seed: int,
        teaching: Teaching = LABELS,
        teacher: jax.Array | None = None,
        *,
        longer: bool = False,
        rate: float | None = None,
    ) -> Params:
        """A float network from scratch.

        Args:
          seed: of its first weights and of the order of the data.
          teaching: by the teacher.
          teacher: logits on the training split.
          longer: for as many steps as others have with their stages.
          rate: learning rate, if not that of the float network.
        """
        steps = self.config.epochs * self.per_epoch + (self.tuning if longer else 0)
        return self._fit(
            Stage(), self.initial(self.model, seed), None,
            jnp.asarray(self.order(seed, steps)), first=0, steps=steps,
            setting=Setting(rate or self.config.rate), teaching=teaching,
            teacher=teacher, bits=None,
        ).params  # fmt: skip

    def shipped(
        self,
        method: str,
        seed: int,
        *,
        bits: int | None,
        setting: Setting,
        teaching: Teaching = LABELS,
    ) -> Params:
        """What ships of a method, from the float network of the seed and taught by it."""
        return self.staged(
            STAGES[method], self.float_network(seed), seed, bits=bits,
            setting=setting, teaching=teaching, teacher=self.teacher(seed),
        )  # fmt: skip

    def staged(
        self,
        stages: Sequence[Stage],
        params: Params,
        seed: int,
        *,
        bits: int | None,
        setting: Setting,
        teaching: Teaching,
        teacher: jax.Array,
    ) -> Params:
        """What ships after stages; leaves may be compressed.

        Args:
          stages: one after another, each with a cosine decay of its own.
          params: to start from.
          seed: of the order of the data.
          bits: of weights, in stages that quantize.
          setting: learning rate of each stage, and kind of scale.
          teaching: by the teacher; in stages that are taught only, its temperature.
          teacher: logits on the training split.
        """
        order = jnp.asarray(self.order(seed + ORDER, self.tuning))
        first, scales, shipped = 0, None, params
        for stage in stages:
            kind, width = _kind(stage, setting), bits or 8
            final = compressor(
                self.config, kind, sparsity=self.config.sparsity, bits=width
            )
            if not stage.sixths:
                return jc.compress(final, params)
            steps = stage.sixths * self.tuning // SIX
            loss = teaching
            if stage.taught_only:
                loss = Teaching(1.0, teaching.hot, teaching.cold)
            state = self._fit(
                stage, params, scales, order, first=first, steps=steps,
                setting=setting, teaching=loss, teacher=teacher, bits=bits,
            )  # fmt: skip
            finalize = self.compiled(("finalize", kind, width), final.finalize)
            shipped = finalize(state.params, state.compression)
            # The next stage starts from floats, exactly zero where they are pruned.
            (masks, scales), params = state.compression, state.params
            if stage.prunes:
                pruner = jc.magnitude_pruning(self.config.sparsity)
                params = pruner.apply(params, masks)
            scales = scales if stage.quantizes else None
            first += steps
        return shipped

    def _fit(
        self,
        stage: Stage,
        params: Params,
        scales: Any,
        order: jax.Array,
        *,
        first: int,
        steps: int,
        setting: Setting,
        teaching: Teaching,
        teacher: jax.Array | None,
        bits: int | None,
    ) -> jc.TrainState:
        knobs = Knobs(
            rate=setting.rate,
            weight=teaching.weight,
            hot=teaching.hot,
            cold=teaching.cold,
            bits=bits or 8,
            pruned=self.config.sparsity if stage.prunes == "held" else 0.0,
            first=first,
            steps=steps,
        )
        if teacher is None:
            if teaching.weight:
                raise ValueError("a teacher is needed where its weight is not 0.")
            teacher = jnp.zeros((len(self.split), self.model.classes))
        kind = _kind(stage, setting, squared=teaching.squared)
        init = self.compiled(
            ("init", kind),
            lambda params, knobs: self._step(kind, knobs, True)[0](params),
        )
        state = init(params, knobs)
        if scales is not None:
            state = state._replace(compression=(state.compression[0], scales))
        fit = self.compiled(("fit", kind), self._stage(kind))
        return fit(state, order, {"x": self.x, "y": self.y, "t": teacher}, knobs)

    def _stage(self, kind: Kind) -> Any:
        """All steps of a stage; the data are arguments, not constants in the program."""

        def fit(
            state: jc.TrainState,
            order: jax.Array,
            data: dict[str, jax.Array],
            knobs: Knobs,
        ) -> jc.TrainState:
            _, step = self._step(kind, knobs, False)

            def body(i: jax.Array, state: jc.TrainState) -> jc.TrainState:
                rows = order[knobs.first + i]
                batch = {name: values[rows] for name, values in data.items()}
                return step(state, batch, knobs.weight)[0]

            return lax.fori_loop(0, knobs.steps, body, state)

        return fit

    def _step(self, kind: Kind, knobs: Knobs, starts: bool) -> tuple[Any, Any]:
        """Start and step of a training whose numbers are traced."""
        config = self.config

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

        def loss(
            params: Params, batch: dict[str, Any], weight: Any, *, temperature: Any
        ) -> dict[str, jax.Array]:
            logits: Any = self.model.apply({"params": params}, batch["x"])
            if kind.squared:
                both = (
                    x - jnp.mean(x, -1, keepdims=True) for x in (logits, batch["t"])
                )
                teacher = jc.distill.squared_logits(*both) / 2
            else:
                teacher = jc.distill.kl(logits, batch["t"], temperature=temperature)
            return {
                "labels": (1 - weight) * common.cross_entropy(logits, batch["y"]),
                "teacher": weight * teacher.mean(),
            }

        return jc.train_step(
            loss,
            adam(1.0),
            compressor(config, kind, sparsity=sparsity, bits=knobs.bits, starts=starts),
            learned_tx=adam(config.learned),
            schedules={"temperature": temperature},
        )


def compressor(
    config: Basis, kind: Kind, *, sparsity: Any, bits: Any, starts: bool = False
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


def _kind(stage: Stage, setting: Setting, *, squared: bool = False) -> Kind:
    scale = setting.scale if stage.quantizes else ""
    return Kind(bool(stage.prunes), scale, squared)
