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

from .. import common
from ..data import Split
from . import _network as network
from ._config import Config
from ._rows import ALONE, LOSSES, Row

Params = network.Params
TEACHER = 10_000  # a seed of its own
ORDER = 1000  # rows read the text in another order than warm students


class Trained(NamedTuple):
    """Students."""

    params: list[Params]
    seconds: float  # of the steps of all of them, without compiling


class Runs(common.Trainer):
    """Trains with one split."""

    def __init__(self, config: Config, classes: int, train: Split) -> None:
        super().__init__(train, batch_size=config.batch_size, quick=config.quick)
        self.config, self._classes = config, classes

    def teacher(self) -> Params:
        """The teacher of all students, trained on the text."""
        c = self.config

        def teacher() -> Params:
            params = network.initial(TEACHER, self._classes, c.teacher)
            fitted = self._fit(ALONE, [params], params, c.rate, c.teaching, [TEACHER])
            return fitted.params[0]

        return self.once("teacher", teacher)

    def warm(self, seeds: Sequence[int]) -> list[Params]:
        """Students that have read the text for a while."""
        c = self.config

        def students() -> list[Params]:
            each = [network.initial(seed, self._classes, c.student) for seed in seeds]
            return self._fit(ALONE, each, each[0], c.rate, c.warming, seeds).params

        return self.once(("warm", *seeds), students)

    def trained(
        self, row: Row, seeds: Sequence[int], rate: float | None = None
    ) -> Trained:
        """Warm students, trained on.

        Args:
          row: how.
          seeds: of the students, and of everything that is drawn.
          rate: learning rate, if not the chosen one.
        """
        return self._fit(
            row,
            self.warm(seeds),
            self.teacher(),
            rate or self.config.rates[row.loss],
            self.config.steps,
            [seed + ORDER for seed in seeds],
        )

    def _fit(
        self,
        row: Row,
        params: Sequence[Params],
        teacher: Params,
        rate: float,
        steps: int,
        seeds: Sequence[int],
    ) -> Trained:
        orders = jnp.stack([self.order(seed, steps) for seed in seeds])
        keys = jnp.stack([jax.random.key(seed) for seed in seeds])
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *params)
        arguments = (stacked, teacher, self.x, orders, keys)
        program = functools.partial(_train, self.config, row, rate, steps)
        # Students are so small that three of them take hardly longer than one.
        side_by_side = jax.vmap(program, in_axes=(0, None, None, 0, 0))
        compiled = common.compiled(side_by_side, quick=self.quick)
        ready = compiled.lower(*arguments).compile()
        before = time.perf_counter()
        fitted = jax.block_until_ready(ready(*arguments))
        seconds = time.perf_counter() - before
        each = [jax.tree.map(lambda x, i=i: x[i], fitted) for i in range(len(seeds))]
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
            own, _ = written(writer, tokens, prompt, writing)
            tokens = jc.distill.own_or_data(choosing, own, tokens, row.fraction)
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
