# SPDX-License-Identifier: Apache-2.0
"""What a network knows of a text, and what its own writing is worth to the teacher."""

from __future__ import annotations

import functools
import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc

from . import _network as network
from ._config import Config
from ._rows import LOSSES
from ._train import Params, Runs, behind, written

CHUNK = 500  # sequences at once


class Compared(NamedTuple):
    """A network beside the teacher on some sequences, in bits a character."""

    student: float  # what the sequences cost the network
    teacher: float  # what they cost the teacher
    kl: float  # kl of the network from the teacher
    reverse_kl: float


class Judge:
    """Compares networks with the teacher of a run."""

    def __init__(self, config: Config, runs: Runs) -> None:
        self._config, self._runs = config, runs
        self._compare = runs.compiled("compare", self._means)
        self._write = runs.compiled("write", self._written)

    def compare(self, params: Params, tokens: np.ndarray | jax.Array) -> Compared:
        """Means over the first sequences of ``(n, length)``, behind their prompts."""
        tokens, teacher = tokens[: self._config.judged], self._runs.teacher()
        parts = [tokens[i : i + CHUNK] for i in range(0, len(tokens), CHUNK)]
        sums = [
            len(part) * np.asarray(self._compare(params, teacher, part), float)
            for part in parts
        ]
        means = np.sum(sums, axis=0) / len(tokens) / math.log(2)
        return Compared(*means.tolist())

    def of_teacher(self, tokens: np.ndarray) -> float:
        """Bits a character that the sequences cost the teacher."""
        return self.compare(self._runs.teacher(), tokens).teacher

    def own(self, params: Params, tokens: np.ndarray, seed: int) -> Compared:
        """The same on what the network writes behind the prompts of a text.

        Prompts are spread evenly over the text.
        """
        number = min(self._config.written, len(tokens))
        prompts = jnp.asarray(tokens[:: len(tokens) // number][:number])
        return self.compare(params, self._write(params, prompts, jax.random.key(seed)))

    def cost(self, params: Params) -> dict[str, float]:
        """Milliseconds that a batch of rollouts takes, by steps and by whole passes.

        The fastest of five, since others may use the machine too.
        """
        prompts = jnp.asarray(self._runs.split.x[: self._config.batch_size])
        rollouts = {
            "steps": self._write,
            "passes": self._runs.compiled("passes", self._written_by_passes),
        }
        milliseconds: dict[str, float] = {}
        for name, rollout in rollouts.items():
            jax.block_until_ready(rollout(params, prompts, jax.random.key(0)))
            times = []
            for _ in range(5):
                before = time.perf_counter()
                jax.block_until_ready(rollout(params, prompts, jax.random.key(0)))
                times.append(time.perf_counter() - before)
            milliseconds[name] = 1000 * min(times)
        return milliseconds

    def _means(self, params: Params, teacher: Params, tokens: jax.Array) -> jax.Array:
        student, of_teacher, following = behind(
            params, teacher, tokens, self._config.prompt
        )
        cross_entropy = LOSSES["cross-entropy"]
        values = (
            cross_entropy(student, of_teacher, following),
            cross_entropy(of_teacher, student, following),
            jc.distill.kl(student, of_teacher),
            jc.distill.reverse_kl(student, of_teacher),
        )
        return jnp.stack([value.mean() for value in values])

    def _written(self, params: Params, tokens: jax.Array, key: jax.Array) -> jax.Array:
        return written(params, tokens, self._config.prompt, key)[0]

    def _written_by_passes(
        self, params: Params, tokens: jax.Array, key: jax.Array
    ) -> jax.Array:
        logits_of = functools.partial(network.logits, params)
        return jc.distill.rollout(logits_of, tokens, self._config.prompt, key)[0]
