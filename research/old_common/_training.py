# SPDX-License-Identifier: Apache-2.0
"""A whole training as one traced function: a scan over the order of the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax import lax

import jaxcompress as jc

from ..data import Split, batches

Params = Any
Step = Callable[..., tuple[jc.TrainState, dict[str, jax.Array]]]


def initial(model: nn.Module, split: Split, seed: int, *, quick: bool) -> Params:
    """Random parameters."""
    # A third of a trial would go into compiling the normal distribution well.
    init = compiled(model.init, quick=True) if quick else model.init
    return init(jax.random.key(seed), split.x[:1])["params"]


def loss_of(model: nn.Module) -> Callable[[Params, dict[str, jax.Array]], jax.Array]:
    """Mean cross-entropy of a batch, as a function of the view."""

    def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        logits: Any = model.apply({"params": params}, batch["x"])
        return optax.losses.softmax_cross_entropy_with_integer_labels(
            logits, batch["y"]
        ).mean()

    return loss


def order(split: Split, *, batch_size: int, seed: int, steps: int) -> np.ndarray:
    """Which examples are in which batch: int32 ``(steps, batch_size)``."""
    rows = batches(
        Split(np.arange(len(split), dtype=np.int32), np.array(split.y)),
        batch_size=batch_size,
        seed=seed,
    )
    return np.stack([next(rows)["x"] for _ in range(steps)])


def scan(
    step: Step, state: jc.TrainState, order: jax.Array, x: jax.Array, y: jax.Array
) -> jc.TrainState:
    """Take a step for every row of ``order``."""

    def body(state: jc.TrainState, rows: jax.Array) -> tuple[jc.TrainState, None]:
        return step(state, {"x": x[rows], "y": y[rows]})[0], None

    return lax.scan(body, state, order)[0]


def compiled(fn: Callable[..., Any], *, quick: bool) -> Callable[..., Any]:
    """``jax.jit``; for a trial run of a few steps, compiled fast rather than well."""
    options = {"xla_backend_optimization_level": 0} if quick else None
    return jax.jit(fn, compiler_options=options)


def accuracy(model: nn.Module, params: Params, split: Split) -> float:
    """Fraction of right answers."""
    return float((_logits(model, params, split.x).argmax(-1) == split.y).mean())


def _logits(model: nn.Module, params: Params, x: np.ndarray) -> np.ndarray:
    parts = [x[i : i + 5000] for i in range(0, len(x), 5000)]
    return np.concatenate([np.asarray(_apply(model, params, part)) for part in parts])


@jax.jit(static_argnums=0)
def _apply(model: nn.Module, params: Params, x: np.ndarray) -> Any:
    return model.apply({"params": params}, x)
