# SPDX-License-Identifier: Apache-2.0
"""The training of a student, and what it learns from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import jaxcompress as jc
from jaxcompress import distill

from . import _losses as losses
from ._network import Answers, Network
from ._rows import Row

Params = Any


class Transfer(NamedTuple):
    """What a student learns from."""

    x: Any  # (n, h, w, c)
    y: Any  # float (n, classes): shares of the classes
    teacher: Answers  # of all n; None where it is not asked
    ids: Any = None  # int (n,): their own numbers, where a loss remembers examples


def training(row: Row, model: Network, decay: float) -> Callable[..., Params]:
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
            params: Params, batch: Transfer, *, teacher: Any = None, **known: Any
        ) -> Any:
            student: Any = model.apply({"params": params["net"]}, batch.x)
            answers: Any = batch.teacher
            if teacher is not None:
                answers = model.apply({"params": teacher["net"]}, batch.x)
            share = setting["smoothing"]
            labels = (1 - share) * batch.y + share / batch.y.shape[-1]
            cross = optax.losses.softmax_cross_entropy(student.logits, labels)
            total = setting["labels"] * cross.mean()
            asked = losses.Asked(
                student,
                answers,
                batch.y.argmax(-1),
                known.get("temperature", setting["temperature"]),
                params.get("projector"),
            )
            if row.loss is not None:
                total += setting["weight"] * row.loss(asked)
            if row.kl:
                asked = asked._replace(temperature=setting["kl_temperature"])
                total += setting["kl"] * losses.kl(asked)
            if row.memory:
                remembered = losses.Remembered(
                    known["model_state"],
                    batch.ids,
                    known["rng"],
                    params["teacher_projector"],
                )
                value, seen = losses.crd(asked, remembered)
                return total + setting["weight"] * value, jc.Aux(model_state=seen)
            return total

        steps = len(order)
        schedules = {}
        if row.schedule:
            start = 2 * setting["temperature"]
            schedules["temperature"] = optax.linear_schedule(start, 1.0, steps)
        init, step = jc.train_step(
            loss_fn,
            optax.adam(optax.cosine_decay_schedule(setting["rate"], steps)),
            distill.ema_teacher(decay) if row.average else None,
            schedules=schedules,
        )

        def body(state: jc.TrainState, rows: jax.Array) -> tuple[jc.TrainState, None]:
            return step(state, jax.tree.map(lambda x: x[rows], transfer))[0], None

        start = init(params, model_state=bank, rng=key)
        return jax.lax.scan(body, start, order)[0].params["net"]

    return train
