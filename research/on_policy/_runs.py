# SPDX-License-Identifier: Apache-2.0
"""Training a teacher and students: a training is one scan, of all seeds side by side."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

import jaxcompress as jc

from .. import old_common as common
from ..data import Split
from . import _network as network
from ._config import Config
from ._rows import ALONE, LOSSES, Row

Params = network.Params
TEACHER, ORDER = (
    10_000,
    1000,
)  # a seed of its own; another order of the text than before


class Trained(NamedTuple):
    """Students."""

    params: list[Params]
    seconds: float  # of the steps of all of them, without compiling


class Runs:
    """Trains with one split."""

    def __init__(self, config: Config, classes: int, train: Split) -> None:
        self.config, self._classes, self._train = config, classes, train
        if len(train) < config.batch_size:
            raise common.RunError(f"no batch of {config.batch_size} in the data.")
        self._text = jnp.asarray(train.x)

    def teacher(self) -> Params:
        """The teacher of all students, trained on the text."""
        c = self.config
        params = network.initial(TEACHER, self._classes, c.teacher)
        (trained,), _ = self._fit(
            ALONE, [params], params, c.rate, c.teaching, [TEACHER]
        )
        return trained

    def warm(self, seeds: Sequence[int]) -> list[Params]:
        """Students that have read the text for a while."""
        c = self.config
        made = [network.initial(seed, self._classes, c.student) for seed in seeds]
        return self._fit(ALONE, made, made[0], c.rate, c.warming, seeds).params

    def trained(
        self,
        row: Row,
        warm: Sequence[Params],
        teacher: Params,
        seeds: Sequence[int],
        rate: float | None = None,
    ) -> Trained:
        """Warm students, trained on.

        Args:
          row: how.
          warm: parameters of the students.
          teacher: those of the teacher.
          seeds: of the order of the text, and of everything that is drawn.
          rate: learning rate, if not the chosen one.
        """
        rate = rate or self.config.rates[row.loss]
        seeds = [seed + ORDER for seed in seeds]
        return self._fit(row, warm, teacher, rate, self.config.steps, seeds)

    def _fit(
        self,
        row: Row,
        params: Sequence[Params],
        teacher: Params,
        rate: float,
        steps: int,
        seeds: Sequence[int],
    ) -> Trained:
        rows = [
            common.order(
                self._train, batch_size=self.config.batch_size, seed=seed, steps=steps
            )
            for seed in seeds
        ]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        given = (stacked, teacher, self._text, jnp.stack(rows), keys)
        program = functools.partial(_train, self.config, row, rate, steps)
        # Students are so small that three of them take hardly longer than one.
        side_by_side = jax.vmap(program, in_axes=(0, None, None, 0, 0))
        compiled = common.compiled(side_by_side, quick=self.config.quick)
        ready = compiled.lower(*given).compile()
        before = time.perf_counter()
        made = jax.block_until_ready(ready(*given))
        seconds = time.perf_counter() - before
        each = [jax.tree.map(lambda x, i=i: x[i], made) for i in range(len(seeds))]
        return Trained(each, seconds)


def _train(
    config: Config,
    row: Row,
    rate: float,
    steps: int,
    params: Params,
    teacher: Params,
    text: jax.Array,
    order: jax.Array,
    key: jax.Array,
) -> Params:
    init, step = jc.train_step(
        loss_of(row, config.prompt),
        optax.adam(optax.cosine_decay_schedule(rate, steps)),
    )

    def body(state: jc.TrainState, rows: jax.Array) -> tuple[jc.TrainState, None]:
        return step(state, text[rows], teacher)[0], None

    return lax.scan(body, init(params, rng=key), order)[0].params


def loss_of(row: Row, prompt: int) -> Callable[..., jax.Array]:
    """The loss of a row, as ``jc.train_step`` takes it; nats a character."""
    loss = LOSSES[row.loss]

    def of(
        params: Params, tokens: jax.Array, teacher: Params, *, rng: jax.Array
    ) -> jax.Array:
        if row.writer != "text":
            writing, choosing = jax.random.split(rng)
            writer = teacher if row.writer == "teacher" else params
            made, _ = written(writer, tokens, prompt, writing)
            tokens = jc.distill.own_or_data(choosing, made, tokens, row.fraction)
        return loss(*behind(params, teacher, tokens, prompt)).mean()

    return of


def written(
    params: Params, tokens: jax.Array, prompt: int, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """What a network writes behind prompts, a character at a time."""
    step = functools.partial(network.step, params)
    start = network.start(params, len(tokens))
    return jc.distill.rollout_steps(step, start, tokens, prompt, key)


def behind(
    student: Params, teacher: Params, tokens: jax.Array, prompt: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Logits of both for the characters behind the prompt, and those characters."""
    own, of_teacher = (
        network.logits(params, tokens[:, :-1])[:, prompt - 1 :]
        for params in (student, teacher)
    )
    return own, of_teacher, tokens[:, prompt:]
