# SPDX-License-Identifier: Apache-2.0
"""Teachers, what they answer, and a student of a row."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from jaxcompress import distill

from .. import common
from ..data import Split
from ._config import Basis, Setting
from ._images import subset, views_of
from ._network import Answers, Network
from ._rows import Asked, Remembered, Row, kl
from ._tables import TEACHER, TEACHERS, Record

Params = Any
CHUNK = 1000  # images that a network is asked about at once


class Transfer(NamedTuple):
    """What a student learns from."""

    x: Any  # (n, h, w, c)
    y: Any  # float (n, classes): shares of the classes
    teacher: Answers  # of all n; None where it is not asked
    ids: Any = None  # int (n,): their own numbers, where a loss remembers examples


def only_logits(logits: Any) -> Answers:
    """Answers of a teacher that does not show its maps."""
    nothing: Any = None
    return Answers(logits, nothing, nothing)


class Runs(common.Trainer):
    """Trains with one split; compiles once a loss, not once a seed or a weight."""

    def __init__(self, config: Basis, train: Split, classes: int) -> None:
        super().__init__(train, batch_size=config.teacher_batch, quick=config.quick)
        self.config, self.classes = config, classes
        self.student = Network(classes, config.widths)
        # Not by patches: they would take more memory than caches have.
        self._large = Network(classes, config.teacher_widths, patches=False)
        if round(len(train) * config.share) < config.batch_size:
            raise common.RunError(f"no batch of {config.batch_size} in the share.")

    def teacher(self, seed: int) -> Params:
        """A teacher, trained on the whole split."""

        def teacher() -> Params:
            steps = self.config.teacher_epochs * self.per_epoch
            init, step = self.once("teach", lambda: self._teaching(steps))
            state = init(jax.tree.map(jnp.copy, self._initial(self._large, seed)))
            order = self.order(seed, steps)
            return common.loop(step, state, order, self.split).params

        return self.once(("teacher", seed), teacher)

    def logits(self, params: Params, x: Any, model: Network | None = None) -> Any:
        """``(n, classes)`` of images; of the teacher if no other network is named."""
        return self._asked(params, x, model, maps=False)

    def ask(self, params: Params, x: jax.Array) -> jax.Array:
        """Logits of a teacher, to be traced."""
        answers: Any = self._large.apply({"params": params}, x)
        return answers.logits

    def accuracy(
        self, params: Params, split: Split, model: Network | None = None
    ) -> float:
        """Fraction of right answers; of the teacher if no other is named."""
        return common.right(self.logits(params, split.x, model), split)

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
            rows = subset(self.split, self.config.share, seed)
            y = np.eye(self.classes, dtype=np.float32)[self.split.y[rows]]
            x, y = views_of(
                views, self.split.x[rows], y, number=self.config.views, seed=seed
            )
            asked = [self.teacher(of) for of in teachers]
            if views:  # the maps of all would be large, and no row asks for them
                answers = [only_logits(self.logits(params, x)) for params in asked]
            else:
                answers = [self._asked(params, x, None, maps=True) for params in asked]
            if len(answers) == 1:
                return Transfer(x, y, answers[0])
            stacked = jnp.stack([jnp.asarray(each.logits) for each in answers])
            logits = distill.ensemble(stacked, temperature=temperature)
            return Transfer(x, y, answers[0]._replace(logits=logits))

        softened = [temperature] if len(teachers) > 1 else []
        return self.once(("transfer", seed, *teachers, views, *softened), make)

    def whole(self, teacher: int) -> Transfer:
        """The whole split, with the logits of a teacher."""

        def make() -> Transfer:
            logits = self.logits(self.teacher(teacher), self.split.x)
            y = np.eye(self.classes, dtype=np.float32)[self.split.y]
            return Transfer(self.x, y, only_logits(jnp.asarray(logits)))

        return self.once(("whole", teacher), make)

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
        model, config = model or self.student, self.config
        if order is None:
            # As many steps for those with more views.
            n = round(len(self.split) / round(1 / config.share))
            steps = config.epochs * (n // config.batch_size)
            order = self.order_of(len(transfer.x), config.batch_size, seed, steps)
        if row.part != "features":  # one program for all that need no maps
            transfer = transfer._replace(teacher=only_logits(transfer.teacher.logits))
        params = {"net": self._initial(model, seed)}
        bank = key = None
        if row.projector:
            random = np.random.RandomState(seed)
            shapes: Any = jax.eval_shape(
                model.apply, {"params": params["net"]}, self.split.x[:1]
            )
            ours, theirs = (
                getattr(answers, row.projector).shape[-1]
                for answers in (shapes, transfer.teacher)
            )
            width = row.memory or theirs
            params["projector"] = _projector(random, ours, width)
            if row.memory:
                params["teacher_projector"] = _projector(random, theirs, width)
                number, key = len(transfer.x), jax.random.key(seed)
                transfer = transfer._replace(ids=np.arange(number))
                bank = distill.memory(key, number, width)
        program = self.compiled(("fit", model, row.traced), training(row, model))
        return program(params, order, transfer, dataclasses.asdict(setting), bank, key)

    @staticmethod
    def order_of(number: int, batch_size: int, seed: int, steps: int) -> np.ndarray:
        """Which of so many examples are in which batch."""
        every = Split(np.arange(number), np.arange(number))
        return common.order(every, batch_size=batch_size, seed=seed, steps=steps)

    def _asked(
        self, params: Params, x: Any, model: Network | None, *, maps: bool
    ) -> Any:
        """Answers to images as numpy arrays, or their logits alone."""
        model = model or self._large

        def answer(params: Params, x: jax.Array) -> Any:
            answers: Any = model.apply({"params": params}, x)
            return answers if maps else answers.logits

        ask = self.compiled(("ask", model, maps), answer)
        return common.in_chunks(lambda part: ask(params, part), CHUNK, x)

    def _teaching(self, steps: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
        def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
            return common.cross_entropy(self.ask(params, batch["x"]), batch["y"])

        schedule = optax.cosine_decay_schedule(self.config.teacher_rate, steps)
        init, step = jc.train_step(loss, optax.adam(schedule), donate=True)
        return init, common.compiled(step, quick=True) if self.quick else step

    def _initial(self, model: Network, seed: int) -> Params:
        init = self.compiled(("init", model), model.init)
        return init(jax.random.key(seed), self.split.x[:1])["params"]


def teachers(runs: Runs, test: Split) -> list[Record]:
    """Every teacher on the test set, and all of them together."""
    logits = [
        jnp.asarray(runs.logits(runs.teacher(seed), test.x))
        for seed in range(runs.config.teachers)
    ]
    each = [(TEACHER, seed, x) for seed, x in enumerate(logits)]
    together = (TEACHERS, 0, distill.ensemble(jnp.stack(logits)))
    return [
        Record(
            part="teachers",
            name=name,
            seed=seed,
            accuracy=common.right(np.asarray(x), test),
        )
        for name, seed, x in (*each, together)
    ]


def fitted(runs: Runs, row: Row, seed: int, test: Split) -> list[Record]:
    """A student of a row on the test set."""
    setting = row.setting_in(runs.config.chosen)
    every = range(runs.config.teachers)
    by = every if row.ensemble else [seed % runs.config.teachers]
    transfer = runs.transfer(seed, by, row.views, setting.temperature)
    params = runs.fit(row, setting, transfer, seed)
    accuracy = runs.accuracy(params, test, runs.student)
    return [Record(part=row.part, name=row.name, seed=seed, accuracy=accuracy)]


def training(row: Row, model: Network) -> Callable[..., Params]:
    """A whole training as one traced function; settings are arguments."""

    def train(
        params: Params,
        order: jax.Array,
        transfer: Transfer,
        setting: dict[str, Any],
        bank: distill.Memory | None,
        key: jax.Array | None,
    ) -> Params:
        def loss_fn(
            params: Params, batch: Transfer, *, teacher: Any = None, **traced: Any
        ) -> Any:
            student: Any = model.apply({"params": params["net"]}, batch.x)
            answers: Any = batch.teacher
            if teacher is not None:
                answers = model.apply({"params": teacher["net"]}, batch.x)
            share = setting["smoothing"]
            labels = (1 - share) * batch.y + share / batch.y.shape[-1]
            cross = optax.losses.softmax_cross_entropy(student.logits, labels)
            total = setting["labels"] * cross.mean()
            asked = Asked(
                student,
                answers,
                batch.y.argmax(-1),
                traced.get("temperature", setting["temperature"]),
                params.get("projector"),
            )
            if row.memory:
                remembered = Remembered(
                    traced["model_state"],
                    batch.ids,
                    traced["rng"],
                    params["teacher_projector"],
                )
                assert row.loss is not None
                value, seen = row.loss(asked._replace(memory=remembered))
                return total + setting["weight"] * value, jc.Aux(model_state=seen)
            if row.loss is not None:
                total += setting["weight"] * row.loss(asked)
            if row.kl:
                asked = asked._replace(temperature=setting["kl_temperature"])
                total += setting["kl"] * kl(asked)
            return total

        steps = len(order)
        schedules = {}
        if row.schedule:
            start = 2 * setting["temperature"]
            schedules["temperature"] = optax.linear_schedule(start, 1.0, steps)
        init, step = jc.train_step(
            loss_fn,
            optax.adam(optax.cosine_decay_schedule(setting["rate"], steps)),
            distill.ema_teacher(row.average) if row.average else None,
            schedules=schedules,
        )

        def body(state: jc.TrainState, rows: jax.Array) -> tuple[jc.TrainState, None]:
            return step(state, jax.tree.map(lambda x: x[rows], transfer))[0], None

        start = init(params, model_state=bank, rng=key)
        return jax.lax.scan(body, start, order)[0].params["net"]

    return train


def _projector(random: np.random.RandomState, ours: int, theirs: int) -> jax.Array:
    """A matrix to start from that keeps the size of what it projects."""
    return jnp.asarray(random.normal(size=(ours, theirs)) / ours**0.5, jnp.float32)
