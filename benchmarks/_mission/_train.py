# SPDX-License-Identifier: Apache-2.0
"""Training for all networks and compressors, with the time that it takes."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from research import data

_CHUNK = 1000


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A network after training.

    Attributes:
      variables: raw parameters, and batch statistics if there are any.
      shipped: the same, as the compressor finalizes them.
      seconds: of the steps, without compilation.
      compile_seconds: of the first step, compilation included.
      early: raw parameters and batch statistics as they were on the way.
    """

    variables: Any
    shipped: Any
    seconds: float
    compile_seconds: float
    early: Any = None


def fit(
    model: nn.Module,
    variables: Any,
    split: Any,
    *,
    steps: int,
    rate: float,
    seed: int,
    batch_size: int,
    compressor: jc.Compressor | None = None,
    teacher: np.ndarray | None = None,
    weight: float = 1.0,
    warmup: bool = True,
    early: int | None = None,
) -> Fitted:
    """Train a network.

    Args:
      model: the network.
      variables: where to begin.
      split: the training images.
      steps: number of updates.
      rate: the highest learning rate; it falls to zero along a cosine.
      seed: of the order of the images.
      batch_size: images in an update.
      compressor: of the parameters.
      teacher: logits of every training image; None trains on labels alone.
      weight: of the teacher, beside the labels.
      warmup: whether the rate rises over the first twentieth of the updates.
      early: after how many updates the parameters are kept as they are then.
    """
    first = steps // 20 if warmup else 0
    rise = optax.linear_schedule(0.0, rate, max(1, first))
    fall = optax.cosine_decay_schedule(rate, steps - first)
    tx = optax.adamw(optax.join_schedules([rise, fall], [first]), weight_decay=1e-4)
    temperature = {"temperature": optax.linear_schedule(4.0, 1.0, steps)}
    init, step = jc.train_step(
        _loss(model, weight), tx, compressor, schedules=temperature, donate=True
    )
    rest = {name: leaf for name, leaf in variables.items() if name != "params"}
    copied = jax.tree.map(jnp.copy, (variables["params"], rest))
    state = init(copied[0], model_state=copied[1])
    batches = _batches(split, teacher, batch_size, seed)
    start = time.perf_counter()
    state, _ = jax.block_until_ready(step(state, next(batches)))
    compiled, kept = time.perf_counter(), None
    for done in range(1, steps):
        if done == early:
            kept = jax.tree.map(jnp.copy, (state.params, state.model_state))
        state, _ = step(state, next(batches))
    jax.block_until_ready(state)
    seconds = time.perf_counter() - compiled
    c = jc.identity() if compressor is None else compressor
    shipped = c.finalize(state.params, state.compression)
    return Fitted(
        variables={"params": state.params, **state.model_state},
        shipped={"params": shipped, **state.model_state},
        seconds=seconds * steps / max(1, steps - 1),
        compile_seconds=compiled - start,
        early=kept and {"params": kept[0], **kept[1]},
    )


def logits(fn: Callable[..., Any], variables: Any, x: np.ndarray) -> np.ndarray:
    """Return what a network says of every image."""
    run = jax.jit(fn)
    parts = [
        np.asarray(run(variables, x[i : i + _CHUNK])) for i in range(0, len(x), _CHUNK)
    ]
    return np.concatenate(parts)


def accuracy(fn: Callable[..., Any], variables: Any, split: Any) -> float:
    """Return the fraction of right answers."""
    return float((logits(fn, variables, split.x).argmax(-1) == split.y).mean())


def _loss(model: nn.Module, weight: float) -> Callable[..., Any]:
    def loss(params: Any, batch: Any, *, model_state: Any, temperature: Any) -> Any:
        out, new = model.apply(
            {"params": params, **model_state},
            batch["x"],
            train=True,
            mutable=list(model_state),
        )
        terms = {
            "labels": optax.losses.softmax_cross_entropy_with_integer_labels(
                out, batch["y"]
            ).mean()
        }
        if "teacher" in batch:
            distance = jc.distill.kl(out, batch["teacher"], temperature=temperature)
            terms["teacher"] = weight * distance.mean()
        return terms, jc.Aux(model_state=dict(new))

    return loss


def _batches(
    split: Any, teacher: np.ndarray | None, batch_size: int, seed: int
) -> Iterator[dict[str, np.ndarray]]:
    rows = data.Split(np.arange(len(split), dtype=np.int32), np.array(split.y))
    for batch in data.batches(rows, batch_size=batch_size, seed=seed):
        at = batch["x"]
        made = {"x": split.x[at], "y": split.y[at]}
        yield made if teacher is None else made | {"teacher": teacher[at]}
