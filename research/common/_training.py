# SPDX-License-Identifier: Apache-2.0
"""What every training needs: batches, first parameters, programs compiled once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxcompress as jc

from ..data import Split, batches
from ._errors import RunError

Params = Any
Step = Callable[..., tuple[jc.TrainState, dict[str, jax.Array]]]
Value = TypeVar("Value")


class Once:
    """Values that are made when they are first asked for, by key."""

    def __init__(self) -> None:
        self._values: dict[Any, Any] = {}

    def __call__(self, key: Any, make: Callable[[], Value]) -> Value:
        """The value of the key; ``make`` runs the first time."""
        if key not in self._values:
            self._values[key] = make()
        return self._values[key]


class Trainer:
    """The data that networks are trained on; studies add which and how.

    Attributes:
      split: the training split.
      x: its examples, on the device.
      y: its labels, on the device.
      per_epoch: steps an epoch.
      quick: whether this is a trial of a few steps.
      once: programs and networks, by key.
    """

    def __init__(self, train: Split, *, batch_size: int, quick: bool) -> None:
        self.split, self.quick, self.once = train, quick, Once()
        self.x, self.y = jnp.asarray(train.x), jnp.asarray(train.y)
        self.per_epoch, self._batch_size = len(train) // batch_size, batch_size
        if not self.per_epoch:
            raise RunError(
                f"there is no batch of {batch_size} in the {len(train)} training examples."
            )

    def initial(self, model: nn.Module, seed: int) -> Params:
        """Random parameters."""
        # A third of a trial would go into compiling the normal distribution well.
        init = self.compiled(("init", model), model.init) if self.quick else model.init
        return init(jax.random.key(seed), self.split.x[:1])["params"]

    def order(self, seed: int, steps: int) -> np.ndarray:
        """Which examples are in which batch: int32 ``(steps, batch_size)``."""
        return order(self.split, batch_size=self._batch_size, seed=seed, steps=steps)

    def compiled(self, key: Any, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Compiled once a key; later functions of the same key are the same function."""
        return self.once(("compiled", key), lambda: compiled(fn, quick=self.quick))


def loss_of(model: nn.Module) -> Callable[[Params, dict[str, jax.Array]], jax.Array]:
    """Mean cross-entropy of a batch, as a function of the view."""

    def loss(params: Params, batch: dict[str, jax.Array]) -> jax.Array:
        logits: Any = model.apply({"params": params}, batch["x"])
        return cross_entropy(logits, batch["y"])

    return loss


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean over the examples."""
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


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


def loop(
    step: Step, state: jc.TrainState, order: Iterable[np.ndarray], split: Split
) -> jc.TrainState:
    """The same outside of a program: in a scan, convolutions are slow on a CPU."""
    for rows in order:
        state, _ = step(state, {"x": split.x[rows], "y": split.y[rows]})
    return state


def compiled(fn: Callable[..., Any], *, quick: bool) -> Callable[..., Any]:
    """``jax.jit``; for a trial run of a few steps, compiled fast rather than well."""
    options = {"xla_backend_optimization_level": 0} if quick else None
    return jax.jit(fn, compiler_options=options)
