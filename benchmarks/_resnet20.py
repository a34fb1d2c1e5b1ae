# SPDX-License-Identifier: Apache-2.0
"""A ResNet-20 trained on real images, whole and with half of its channels.

python -m benchmarks._resnet20 FOLDER    # trains, and writes the weights there
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from research import data

DENSE, PLAN, HALF = "dense.jc", "plan.json", "half.jc"


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def conv(x: jax.Array, size: int, stride: int = 1) -> jax.Array:
            x = nn.Conv(self.width, (size, size), stride, use_bias=False)(x)
            return nn.BatchNorm(not train, momentum=0.9)(x)

        y = conv(nn.relu(conv(x, 3, self.stride)), 3)
        return nn.relu(y + (x if self.stride == 1 else conv(x, 1, self.stride)))


class ResNet20(nn.Module):
    """Three stages of three blocks, for small images."""

    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        for stage in range(3):
            for block in range(3):
                stride = 2 if stage and not block else 1
                x = Block(self.width * 2**stage, stride)(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


def images(*, quick: bool) -> Any:
    """Fashion-MNIST, or digits for a quick run; as 32 x 32 or 16 x 16 pixels."""
    return data.load("digits" if quick else "fashion_mnist")


def padded(x: np.ndarray) -> np.ndarray:
    """Return images with a margin, so that every stage halves them evenly."""
    margin = (2, 2) if x.shape[1] == 28 else (4, 4)
    return np.pad(x, ((0, 0), margin, margin, (0, 0)))


def function(width: int) -> Callable[..., Any]:
    """The network in evaluation mode, as a function of ``(variables, x)``."""
    return lambda variables, x: ResNet20(width).apply(variables, x)


def train(
    apply: Callable[..., Any], variables: Any, split: Any, steps: int, rate: float
) -> Any:
    """Train a network, batch norms included.

    Args:
      apply: ``(variables, x, train) -> (logits, {"batch_stats": ...})``.
      variables: where to begin.
      split: the training images.
      steps: updates of 128 images each.
      rate: the highest learning rate.
    """
    schedule = optax.warmup_cosine_decay_schedule(0, rate, max(1, steps // 10), steps)
    optimizer = optax.adamw(schedule, weight_decay=1e-3)

    def loss(params: Any, stats: Any, batch: Any) -> Any:
        logits, new = apply({"params": params, "batch_stats": stats}, batch["x"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])
        return losses.mean(), new["batch_stats"]

    @jax.jit
    def step(params: Any, stats: Any, state: Any, batch: Any) -> Any:
        grads, stats = jax.grad(loss, has_aux=True)(params, stats, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), stats, state

    params, stats = variables["params"], variables["batch_stats"]
    state = optimizer.init(params)
    size = min(128, len(split))
    for batch, _ in zip(
        data.batches(split, batch_size=size, seed=0), range(steps), strict=False
    ):
        batch = {"x": padded(batch["x"]), "y": batch["y"]}
        params, stats, state = step(params, stats, state, batch)
    return {"params": params, "batch_stats": stats}


def trained(folder: Path, *, quick: bool, steps: int) -> None:
    """Train the network, remove half of its channels, train on, and save both."""
    width = 4 if quick else 16
    split = images(quick=quick).train
    x = jnp.asarray(padded(split.x[:2]))
    model = ResNet20(width)

    def apply(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x, train=True, mutable="batch_stats")

    start = model.init(jax.random.key(0), x)
    dense = train(apply, start, split, steps, 3e-3)
    jc.save(folder / DENSE, dense)
    groups = jc.trace_axes(function(width), dense, x)
    scores = jc.structured.scores.l2(groups, dense)
    masks = {}
    for name, group in groups.prunable.items():
        kept = np.argsort(-np.asarray(scores[name]))[: group.size // 2]
        masks[name] = np.isin(np.arange(group.size), kept)
    plan = groups.plan(masks)
    plan.save(folder / PLAN)
    small = ResNet20(width // 2)

    def apply_small(variables: Any, x: jax.Array) -> Any:
        return small.apply(variables, x, train=True, mutable="batch_stats")

    sliced = jc.structured.slice_params(dense, plan)
    half = train(apply_small, sliced, split, max(1, steps // 2), 1e-3)
    jc.save(folder / HALF, half)


def load(folder: Path) -> tuple[Any, Any]:
    """Read the weights of the whole and of the half network."""
    return jc.load(folder / DENSE), jc.load(folder / HALF)


def main() -> None:
    """Train in a process of its own, with all cores."""
    made = argparse.ArgumentParser(prog="python -m benchmarks._resnet20")
    made.add_argument("folder", type=Path)
    made.add_argument("--quick", action="store_true")
    made.add_argument("--steps", type=int, default=800)
    settings = made.parse_args()
    settings.folder.mkdir(parents=True, exist_ok=True)
    trained(settings.folder, quick=settings.quick, steps=settings.steps)
    print(json.dumps({"folder": str(settings.folder)}))


if __name__ == "__main__":
    main()
