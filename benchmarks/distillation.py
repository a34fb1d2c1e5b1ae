# SPDX-License-Identifier: Apache-2.0
"""What distillation costs in a training step, against the step on labels alone.

The teacher is a network of the student's size: asked in the step (live), or its answers
taken out of the batch (cached), as all logits or as the largest ones. One row looks them
up in a ``teacher_cache`` on disk before every step. One call is a block of steps with the
state donated. Times are per step.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from jaxcompress import teacher_cache

from . import _harness, _models

_T = 2.0
_K = 3
_AIMS = {
    "live teacher": "<= 1.40",
    "cached logits": "<= 1.05",
    "cached top 3": "<= 1.05",
}
_TX = optax.adam(1e-6)  # so slow that no variant moves away from the others

LossFn = Callable[..., Any]


@_harness.one_core()
def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = _harness.parser("distillation", __doc__, rounds=30)
    made.add_argument("--model", choices=("mlp", "conv"), default="mlp")
    made.add_argument("--steps", type=int, default=100, help="in a block (100)")
    settings = _harness.parse(made, argv)
    if settings.steps < 1:
        made.error(f"--steps {settings.steps}: a block has 1 step or more.")
    if settings.quick:
        settings.steps = 3
    task = _models.make(settings.model, quick=settings.quick)
    with tempfile.TemporaryDirectory() as folder:
        rows = _harness.measure(
            _variants(task, settings.steps, folder),
            rounds=settings.rounds,
            units=settings.steps,
            control=_block(task, settings.steps, _labels(task)),
            aims=_AIMS,
            clock=time.process_time,
        )
    _harness.show(rows, settings)


def _mean(losses: jax.Array) -> jc.Mean:
    return jc.Mean.of(losses, None)  # all count


def _variants(
    task: _models.Task, steps: int, folder: str
) -> dict[str, _harness.Variant]:
    teacher = jax.tree.map(lambda x: x + 0.01, task.params)

    def distilled(
        answers: Callable[..., jax.Array], mean: Any = _mean, **settings: Any
    ) -> Any:
        return _block(task, steps, _distilled(task, answers, mean), **settings)

    def live(logits: Any, batch: Any, teacher: Any) -> Any:
        theirs = task.logits(teacher, batch["x"])
        return jc.distill.kl(logits, theirs, temperature=_T)

    def top(logits: Any, batch: Any, known: jc.distill.TopK) -> Any:
        del batch
        return jc.distill.top_k_kl(logits, known)

    def cached(logits: Any, batch: Any) -> Any:
        return jc.distill.kl(logits, batch["teacher"], temperature=_T)

    def relations(logits: Any, batch: Any) -> Any:
        return jc.distill.relational_distance(logits, batch["teacher"])

    known = jc.distill.top_k(task.batches[0]["teacher"], _K, temperature=_T)
    return {
        "labels": _block(task, steps, _labels(task)),
        "live teacher": distilled(live, args=(teacher,)),
        "live teacher, the average of the student": distilled(
            live, compressor=jc.distill.ema_teacher(0.99)
        ),
        "cached logits": distilled(cached),
        "cached top 3": distilled(top, args=(known,)),
        "cached top 3, from disk": _from_disk(task, steps, top, folder),
        "cached logits, 4 micro-batches": distilled(cached, jnp.mean, micro_batches=4),
        "cached logits, 4 micro-batches of a Mean": distilled(cached, micro_batches=4),
        "relations of the cached logits (RKD)": distilled(relations),
    }


def _cross_entropy(task: _models.Task, params: Any, batch: Any) -> tuple[Any, Any]:
    logits = task.logits(params, batch["x"])
    loss = optax.losses.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
    return logits, loss


def _labels(task: _models.Task) -> LossFn:
    return lambda params, batch: _cross_entropy(task, params, batch)[1].mean()


def _distilled(
    task: _models.Task, answers: Callable[..., jax.Array], mean: Any = _mean
) -> LossFn:
    def loss_fn(params: Any, batch: Any, *args: Any, **known: Any) -> dict[str, Any]:
        logits, hard = _cross_entropy(task, params, batch)
        soft = answers(logits, batch, *args, *known.values())
        return {"labels": mean(hard), "teacher": mean(soft)}

    return loss_fn


def _block(
    task: _models.Task, steps: int, loss_fn: LossFn, *, args: tuple[Any, ...] = (),
    compressor: jc.Compressor | None = None, micro_batches: int = 1,
) -> _harness.Variant:  # fmt: skip
    init, step = jc.train_step(
        loss_fn, _TX, compressor, micro_batches=micro_batches, donate=True
    )
    state = init(jax.tree.map(jnp.copy, task.params))
    return _models.loop(task, steps, state, step, *args)


def _from_disk(
    task: _models.Task, steps: int, answers: Callable[..., jax.Array], folder: str
) -> _harness.Variant:
    """As many examples as the batches have, looked up before each step."""
    batch, classes = task.batches[0]["teacher"].shape
    key = teacher_cache.Key(
        teacher=teacher_cache.fingerprint(task.params),
        classes=classes, k=_K, temperature=_T,
    )  # fmt: skip
    with teacher_cache.write(folder, key) as cache:
        for i, each in enumerate(task.batches):
            cache.add(i * batch + np.arange(batch), each["teacher"])
    reader = teacher_cache.read(folder, key)
    init, step = jc.train_step(_distilled(task, answers), _TX, donate=True)
    number = 0

    def looked_up(state: Any, of_batch: Any) -> Any:
        nonlocal number
        ids = number % len(task.batches) * batch + np.arange(batch)
        number += 1
        return step(state, of_batch, reader(ids))

    state = init(jax.tree.map(jnp.copy, task.params))
    return _models.loop(task, steps, state, looked_up)


if __name__ == "__main__":
    main()
