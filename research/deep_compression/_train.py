# SPDX-License-Identifier: Apache-2.0
"""Training one stage of one seed: resumable at any moment, the same to the bit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from jaxcompress import report

from .. import common
from ..data import Dataset, Split
from ._config import Config
from ._stages import Stage

# A checkpoint takes a few tenths of a second; a kill loses at most this much work.
_SECONDS_BETWEEN_CHECKPOINTS = 15.0


class StageTrainer(common.Trainer):
    """Trains a stage for one seed after another with the same compiled step."""

    def __init__(
        self, config: Config, dataset: Dataset, model: nn.Module, stage: Stage
    ) -> None:
        super().__init__(dataset.train, batch_size=config.batch_size, quick=False)
        self.config, self.model, self.stage = config, model, stage
        self.steps = stage.epochs * self.per_epoch
        schedule = optax.cosine_decay_schedule(config.learning_rate, self.steps)
        self._init, self._step = jc.train_step(
            self._loss, optax.adam(schedule), stage.compressor, donate=True
        )

    def start(self, seed: int) -> Any:
        """Random parameters."""
        return self.initial(self.model, seed)

    def train(
        self, seed: int, params: Any, teacher: np.ndarray | None, checkpoints: Path
    ) -> tuple[Any, Any, float]:
        """Train, from the newest checkpoint if there is one.

        Args:
          seed: of the order of the data.
          params: to start from.
          teacher: logits of the dense network on the training split, if it teaches.
          checkpoints: folder for them.

        Returns:
          Raw parameters, state of the compressor, and seconds spent in this process.
        """
        # Copies, since the step donates what it is given.
        state = self._init(jax.tree.map(jnp.copy, params))
        if jc.checkpoint_steps(checkpoints):
            state = jc.restore_checkpoint(checkpoints, state)
        start = saved = time.monotonic()
        first, order = int(state.step), self.order(seed, self.steps)
        for step, rows in enumerate(order[first:], first + 1):
            batch = {"x": self.split.x[rows], "y": self.split.y[rows]}
            if teacher is not None:
                batch["teacher"] = teacher[rows]
            state, _ = self._step(state, batch)
            if time.monotonic() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                jc.save_checkpoint(checkpoints, step, state)
                saved = time.monotonic()
        jax.block_until_ready(state)
        return state.params, state.compression, time.monotonic() - start

    def _loss(self, params: Any, batch: dict[str, jax.Array]) -> jax.Array:
        logits: Any = self.model.apply({"params": params}, batch["x"])
        labels = common.cross_entropy(logits, batch["y"])
        if not self.stage.distilled:
            return labels
        teaching = jc.distill.kl(
            logits, batch["teacher"], temperature=self.config.temperature
        ).mean()
        weight = self.config.distill
        return weight * teaching + (1 - weight) * labels


def mean_logits(logits: Sequence[np.ndarray]) -> np.ndarray:
    """Return logits of the mean of the probabilities of several networks."""
    if len(logits) == 1:
        return logits[0]
    return np.asarray(jc.distill.ensemble(jnp.stack(logits)))


def latency(model: nn.Module, tree: Any, split: Split) -> report.Latency:
    """Time of one batch, from the tree as it is stored: decoded on the device."""

    def run(tree: Any, x: jax.Array) -> Any:
        return model.apply({"params": jc.dense(tree)}, x)

    return report.latency(run, tree, jnp.asarray(split.x[:256]))
