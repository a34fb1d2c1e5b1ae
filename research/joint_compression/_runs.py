# SPDX-License-Identifier: Apache-2.0
"""One network: a float training, and what becomes of it in the stages of a method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc

from .. import old_common as common
from ..data import Split
from ._config import SIX, Config, Setting
from ._rows import LABELS, Stage, Teaching
from ._train import Data, Kind, Knobs, Params, Programs, compressor, programs

ORDER = 1000  # what is trained on sees the data in another order than before


class Runs:
    """Trains with one network and one split; compiles once a kind of stage."""

    def __init__(self, config: Config, model: common.Perceptron, train: Split) -> None:
        self.config, self.model, self._train = config, model, train
        self._each = len(train) // config.batch_size
        if self._each * config.tuning < SIX:
            raise common.RunError(f"fewer than {SIX} batches of data for the stages.")
        self._x, self._y = jnp.asarray(train.x), jnp.asarray(train.y)
        self._programs: dict[Kind, Programs] = {}
        self._finalizers: dict[tuple[Kind, int], Callable[..., Params]] = {}

    @property
    def tuning(self) -> int:
        """Steps of all stages of a method together, which sixths divide."""
        steps = self.config.tuning * self._each
        return steps - steps % SIX

    def initial(self, seed: int) -> Params:
        """Random parameters."""
        return common.initial(self.model, self._train, seed, quick=self.config.quick)

    def logits(self, params: Params) -> jax.Array:
        """Of a teacher on the training split: ``(n, classes)``."""
        apply = jax.jit(lambda params, x: self.model.apply({"params": params}, x))
        parts = [
            np.asarray(apply(params, self._train.x[i : i + 5000]))
            for i in range(0, len(self._train), 5000)
        ]
        return jnp.asarray(np.concatenate(parts))

    def trained(
        self,
        seed: int,
        teacher: jax.Array | None = None,
        teaching: Teaching = LABELS,
        *,
        longer: bool = False,
        rate: float | None = None,
    ) -> Params:
        """A float network from scratch.

        Args:
          seed: of its first weights and of the order of the data.
          teacher: logits on the training split.
          teaching: by that teacher.
          longer: for as many steps as others have with their stages.
          rate: learning rate, if not that of the float network.
        """
        steps = self.config.epochs * self._each + (self.tuning if longer else 0)
        return self._fit(
            Stage(), self.initial(seed), None, self._order(seed, steps), steps=steps,
            setting=Setting(rate or self.config.rate), teaching=teaching,
            teacher=teacher, bits=None,
        ).params  # fmt: skip

    def made(
        self,
        stages: Sequence[Stage],
        params: Params,
        seed: int,
        *,
        bits: int | None,
        setting: Setting,
        teaching: Teaching = LABELS,
        teacher: jax.Array | None = None,
    ) -> Params:
        """What ships after the stages of a method; leaves may be compressed.

        Args:
          stages: one after another, each with a cosine decay of its own.
          params: of the trained float network.
          seed: of the order of the data.
          bits: of weights, in stages that quantize.
          setting: learning rate of each stage, and kind of scale.
          teaching: by the teacher; in stages that are taught only, its temperature.
          teacher: logits on the training split.
        """
        order = self._order(seed + ORDER, self.tuning)
        first, scales, shipped = 0, None, params
        for stage in stages:
            steps = stage.sixths * self.tuning // SIX
            loss = teaching
            if stage.taught_only:
                loss = Teaching(1.0, teaching.hot, teaching.cold)
            state = self._fit(
                stage, params, scales, order, first=first, steps=steps,
                setting=setting, teaching=loss, teacher=teacher, bits=bits,
            )  # fmt: skip
            finalize = self._finalize(_kind(stage, setting), bits or 8)
            shipped = finalize(state.params, state.compression)
            # The next stage starts from floats, exactly zero where they are pruned.
            masks, scales = state.compression
            params = self._pruned(state.params, masks) if stage.prunes else state.params
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
        first: int = 0,
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
                raise ValueError("who is taught needs a teacher.")
            teacher = jnp.zeros((len(self._train), self.model.classes))
        program = self._program(_kind(stage, setting, squared=teaching.squared))
        state = program.init(params, knobs)
        if scales is not None:
            state = state._replace(compression=(state.compression[0], scales))
        return program.fit(state, order, Data(self._x, self._y, teacher), knobs)

    def _pruned(self, params: Params, state: Any) -> Params:
        return jc.magnitude_pruning(self.config.sparsity).apply(params, state)

    def _order(self, seed: int, steps: int) -> jax.Array:
        return jnp.asarray(
            common.order(
                self._train, batch_size=self.config.batch_size, seed=seed, steps=steps
            )
        )

    def _finalize(self, kind: Kind, bits: int) -> Callable[..., Params]:
        if (kind, bits) not in self._finalizers:
            small = compressor(
                self.config, kind, sparsity=self.config.sparsity, bits=bits
            )
            self._finalizers[kind, bits] = common.compiled(
                small.finalize, quick=self.config.quick
            )
        return self._finalizers[kind, bits]

    def _program(self, kind: Kind) -> Programs:
        if kind not in self._programs:
            self._programs[kind] = programs(self.config, self.model, kind)
        return self._programs[kind]


def _kind(stage: Stage, setting: Setting, *, squared: bool = False) -> Kind:
    scale = setting.scale if stage.quantizes else ""
    return Kind(bool(stage.prunes), scale, squared)
