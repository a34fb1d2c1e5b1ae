# SPDX-License-Identifier: Apache-2.0
"""Teachers, what they answer, and a student of a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from jaxcompress import distill

from .. import old_common as common
from ..data import Split
from . import _losses as losses
from ._config import Config, Setting
from ._invented import inventor
from ._network import Answers, Network
from ._rows import Row
from ._student import Transfer, training
from ._views import subset, views_of

Params = Any
CHUNK = 1000  # images that a network is asked about at once


def said(logits: Any) -> Answers:
    """Answers of a teacher that does not show its maps."""
    nothing: Any = None
    return Answers(logits, nothing, nothing)


class Runs:
    """Trains with one split; compiles once a loss, not once a seed or a weight."""

    def __init__(self, config: Config, train: Split, classes: int) -> None:
        self.config, self.classes, self.train = config, classes, train
        self.student = Network(classes, config.widths)
        self.assistant = Network(classes, config.assistant)
        # Not by patches: they would take more memory than caches have.
        self._large = Network(classes, config.teacher_widths, patches=False)
        self._made: dict[Any, Any] = {}
        if round(len(train) * config.share) < config.batch_size:
            raise common.RunError(f"no batch of {config.batch_size} in the share.")

    def teacher(self, seed: int) -> Params:
        """A teacher, trained on the whole split."""
        return self._once(("teacher", seed), lambda: self._taught(seed))

    def logits(self, params: Params, x: Any, model: Network | None = None) -> Any:
        """``(n, classes)`` of images; of the teacher if no other network is named."""
        return self._asked(params, x, model, maps=False)

    def accuracy(
        self, params: Params, split: Split, model: Network | None = None
    ) -> float:
        """Fraction of right answers; of the teacher if no other is named."""
        right = self.logits(params, split.x, model).argmax(-1) == split.y
        return float(right.mean())

    def transfer(
        self,
        seed: int,
        teachers: Sequence[int],
        views: str = "",
        temperature: float = 1.0,
    ) -> Transfer:
        """The student's share of the split, as the row sees it, with answers.

        Args:
          seed: of the share and of its views.
          teachers: seeds; of several the mean of their probabilities is taken.
          views: see ``views_of``.
          temperature: at which it is taken.
        """

        def make() -> Transfer:
            rows = subset(self.train, self.config.share, seed)
            y = np.eye(self.classes, dtype=np.float32)[self.train.y[rows]]
            x, y = views_of(
                views, self.train.x[rows], y, number=self.config.views, seed=seed
            )
            asked = [self.teacher(of) for of in teachers]
            if views == "invented":
                x = self._invented(asked[0], x)
            if views:  # the maps of all would be large, and no row asks for them
                made = [said(self.logits(params, x)) for params in asked]
            else:
                made = [self._asked(params, x, None, maps=True) for params in asked]
            if len(made) == 1:
                return Transfer(x, y, made[0])
            stacked = jnp.stack([jnp.asarray(answers.logits) for answers in made])
            logits = distill.ensemble(stacked, temperature=temperature)
            return Transfer(x, y, made[0]._replace(logits=logits))

        softened = [temperature] if len(teachers) > 1 else []
        return self._once(("transfer", seed, *teachers, views, *softened), make)

    def whole(self, teacher: int) -> Transfer:
        """The whole split, with the logits of a teacher."""

        def make() -> Transfer:
            logits = self.logits(self.teacher(teacher), self.train.x)
            y = np.eye(self.classes, dtype=np.float32)[self.train.y]
            x = self._once(("x",), lambda: jnp.asarray(self.train.x))
            return Transfer(x, y, said(jnp.asarray(logits)))

        return self._once(("whole", teacher), make)

    def fit(
        self,
        row: Row,
        setting: Setting,
        transfer: Transfer,
        seed: int,
        *,
        model: Network | None = None,
        order: np.ndarray | None = None,
    ) -> Params:
        """A student of a row.

        Args:
          row: what it is trained with.
          setting: how.
          transfer: what on.
          seed: of its start and of the order of the data.
          model: another network than the student.
          order: which examples are in which batch, if not those of ``seed``.
        """
        model = model or self.student
        if order is None:
            # As many steps for those with more views.
            n = round(len(self.train) / round(1 / self.config.share))
            steps = self.config.epochs * (n // self.config.batch_size)
            order = self.order(len(transfer.x), self.config.batch_size, seed, steps)
        if row.part != "features":  # one program for all that need no maps
            transfer = transfer._replace(teacher=said(transfer.teacher.logits))
        params = {"net": self._initial(model, seed)}
        bank = key = None
        if row.projector:
            random = np.random.RandomState(seed)
            ours, theirs = (
                getattr(answers, row.projector).shape[-1]
                for answers in (self._shapes(model, params["net"]), transfer.teacher)
            )
            width = losses.EMBEDDED if row.memory else theirs
            params["projector"] = _projector(random, ours, width)
            if row.memory:
                params["teacher_projector"] = _projector(random, theirs, width)
                number, key = len(transfer.x), jax.random.key(seed)
                transfer = transfer._replace(ids=np.arange(number))
                bank = distill.memory(key, number, width)
        traced = (
            row.loss,
            row.projector,
            row.memory,
            row.kl,
            row.average,
            row.schedule,
        )
        program = self._once(
            ("fit", model, *traced),
            lambda: common.compiled(
                training(row, model, self.config.decay), quick=self.config.quick
            ),
        )
        return program(params, order, transfer, dataclasses.asdict(setting), bank, key)

    @staticmethod
    def order(number: int, batch_size: int, seed: int, steps: int) -> np.ndarray:
        """Which of so many examples are in which batch."""
        all_of_them = np.arange(number)
        return common.order(
            Split(all_of_them, all_of_them),
            batch_size=batch_size,
            seed=seed,
            steps=steps,
        )

    def _asked(
        self,
        params: Params,
        x: Any,
        model: Network | None,
        *,
        maps: bool,
    ) -> Any:
        """Answers to images as numpy arrays, or their logits alone."""
        model = model or self._large

        def answer(params: Params, x: jax.Array) -> Any:
            answers: Any = model.apply({"params": params}, x)
            return answers if maps else answers.logits

        ask = self._once(
            ("ask", model, maps),
            lambda: common.compiled(answer, quick=self.config.quick),
        )
        parts = [ask(params, x[i : i + CHUNK]) for i in range(0, len(x), CHUNK)]
        parts = [jax.tree.map(np.asarray, part) for part in parts]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)

    def _invented(self, params: Params, start: np.ndarray) -> np.ndarray:
        """Images that a teacher is sure of, as many of each class."""
        steps = 2 if self.config.quick else self.config.invention

        def logits_of(params: Params, x: jax.Array) -> jax.Array:
            answers: Any = self._large.apply({"params": params}, x)
            return answers.logits

        invent = self._once(
            ("invent",),
            lambda: common.compiled(
                inventor(logits_of, steps), quick=self.config.quick
            ),
        )
        labels = np.arange(len(start)) % self.classes
        parts = [slice(i, i + CHUNK) for i in range(0, len(start), CHUNK)]
        return np.concatenate([invent(params, start[i], labels[i]) for i in parts])

    def _taught(self, seed: int) -> Params:
        """A loop and no scan, in which convolutions are slow on a CPU."""
        config, (x, y) = self.config, (self.train.x, self.train.y)
        steps = config.teacher_epochs * (len(x) // config.teacher_batch)
        init, step = self._once(("teach",), lambda: self._teaching(steps))
        state = init(jax.tree.map(jnp.copy, self._initial(self._large, seed)))
        for rows in self.order(len(x), config.teacher_batch, seed, steps):
            state, _ = step(state, {"x": x[rows], "y": y[rows]})
        return state.params

    def _teaching(self, steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
            answers: Any = self._large.apply({"params": params}, batch["x"])
            return optax.losses.softmax_cross_entropy_with_integer_labels(
                answers.logits, batch["y"]
            ).mean()

        schedule = optax.cosine_decay_schedule(self.config.teacher_rate, steps)
        init, step = jc.train_step(loss, optax.adam(schedule), donate=True)
        return init, common.compiled(step, quick=True) if self.config.quick else step

    def _initial(self, model: Network, seed: int) -> Params:
        init = self._once(
            ("init", model),
            lambda: common.compiled(model.init, quick=self.config.quick),
        )
        return init(jax.random.key(seed), self.train.x[:1])["params"]

    def _shapes(self, model: Network, params: Params) -> Any:
        return jax.eval_shape(model.apply, {"params": params}, self.train.x[:1])

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _projector(random: np.random.RandomState, ours: int, theirs: int) -> jax.Array:
    """A matrix to start from that keeps the size of what it projects."""
    return jnp.asarray(random.normal(size=(ours, theirs)) / ours**0.5, jnp.float32)
