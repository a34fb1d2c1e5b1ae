# SPDX-License-Identifier: Apache-2.0
"""The small networks that the training benchmarks time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

Params = dict[str, dict[str, jax.Array]]


class Task(NamedTuple):
    """A network with batches to train it on, random but fixed."""

    params: Params
    logits: Callable[[Params, jax.Array], jax.Array]
    batches: list[dict[str, jax.Array]]  # x, y, and the teacher's cached logits


def make(name: str, *, quick: bool) -> Task:
    """Make a task.

    Args:
      name: ``"mlp"`` (784-300-100-10, batches of 128), ``"deep"`` (48 layers of 64), or
        ``"conv"`` (two convolutions and two dense layers on 16 x 16 x 3, batches of 32).
      quick: a small network and few batches.
    """
    keys = iter(jax.random.split(jax.random.key(0), 256))
    if name in ("mlp", "deep"):
        deep = (*48 * (64,), 10)
        full = deep if name == "deep" else (784, 300, 100, 10)
        widths = (16, 10) if quick else full
        batch, x_shape, logits = 128, widths[:1], _mlp
        shapes = list(zip(widths[:-1], widths[1:], strict=True))
    else:
        a, b, c = (4, 4, 8) if quick else (16, 32, 64)
        batch, x_shape, logits = 32, (16, 16, 3), _conv
        shapes = [(3, 3, 3, a), (3, 3, a, b), (16 * b, c), (c, 10)]
    digits = len(str(len(shapes) - 1))  # JAX sorts names
    params = {
        f"Layer_{i:0{digits}}": {
            "kernel": jax.nn.initializers.he_normal()(next(keys), shape, jnp.float32),
            "bias": jnp.zeros(shape[-1:]),
        }
        for i, shape in enumerate(shapes)
    }
    # Several batches: one alone would soon be learnt by heart, its gradients zero.
    batches = [
        {
            "x": jax.random.normal(next(keys), (batch, *x_shape)),
            "y": jax.random.randint(next(keys), (batch,), 0, 10),
            "teacher": jax.random.normal(next(keys), (batch, 10)),
        }
        for _ in range(2 if quick else 16)
    ]
    return Task(params, logits, batches)


def loop(
    task: Task, steps: int, state: Any, step: Callable[..., Any], *args: Any
) -> Callable[[], Any]:
    """A block of steps, each with the next batch, that goes on from call to call.

    Args:
      task: whose batches are used in turns.
      steps: in a block.
      state: to start from; it may be donated.
      step: ``(state, batch, *args) -> (state, metrics)``.
      *args: what belongs to no batch.
    """

    def block() -> Any:
        nonlocal state
        metrics = None
        for i in range(steps):
            state, metrics = step(state, task.batches[i % len(task.batches)], *args)
        return state, metrics

    return block


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["kernel"] + layer["bias"][None]


def _mlp(params: Params, x: jax.Array) -> jax.Array:
    *hidden, last = params.values()
    for layer in hidden:
        x = jax.nn.relu(_dense(layer, x))
    return _dense(last, x)


def _conv(params: Params, x: jax.Array) -> jax.Array:
    *convolutions, dense, last = params.values()
    for layer in convolutions:
        x = _convolve(x, layer["kernel"]) + layer["bias"][None, None, None]
        n, h, w, c = x.shape
        # As a maximum over a reshape, whose gradient is fast on a CPU.
        x = jax.nn.relu(x).reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))
    x = jax.nn.relu(_dense(dense, x.reshape(len(x), -1)))
    return _dense(last, x)


def _convolve(x: jax.Array, kernel: jax.Array) -> Any:
    names = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=names)
