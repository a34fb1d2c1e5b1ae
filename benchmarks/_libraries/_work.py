# SPDX-License-Identifier: Apache-2.0
"""The work: a network trained on images, and what libraries do with it."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxcompress as jc
from research import data

from .. import _networks, _training

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
"""Kernels ``(in, out)`` and biases of dense layers with ReLU between them."""

Predict = Callable[[np.ndarray], Any]
"""Images to logits."""


class Trained(NamedTuple):
    """A network that learns with rounded weights.

    Attributes:
      step: takes images and labels, updates the network, and returns what to wait for.
      predict: what ships, as it is now.
    """

    step: Callable[[np.ndarray, np.ndarray], Any]
    predict: Predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """The same for every library.

    Attributes:
      layers: of the trained network.
      images: to train, calibrate and test with.
      batch: images of a step.
      steps: of training with rounded weights.
      rate: of Adam in these steps, falling to 0 by a cosine.
      quick: whether it is only to be seen that all runs.
    """

    layers: Layers
    images: data.Dataset
    batch: int
    steps: int
    rate: float = 1e-3
    quick: bool = False

    def batches(self, steps: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Images and labels, the same for everyone."""
        draws = np.random.default_rng(seed)
        for _ in range(steps):
            rows = draws.integers(len(self.images.train), size=self.batch)
            yield flat(self.images.train.x[rows]), self.images.train.y[rows]

    def learn(self, network: Trained) -> float:
        """Train a network, and return its accuracy."""
        for x, y in self.batches(self.steps, seed=1):
            network.step(x, y)
        return self.accuracy(network.predict)

    def accuracy(self, predict: Predict) -> float:
        """Percent of right answers on the test split."""
        x, y = flat(self.images.test.x), self.images.test.y
        size = min(1000, len(y) // 2)  # one shape, which runtimes compile once
        used = len(y) // size * size
        found = [
            np.asarray(predict(x[i : i + size])).argmax(-1)
            for i in range(0, used, size)
        ]
        return 100 * float((np.concatenate(found) == y[:used]).mean())

    @property
    def test_batch(self) -> np.ndarray:
        """The images whose logits are timed."""
        return flat(self.images.test.x[: 2 * self.batch])

    @property
    def calibration(self) -> np.ndarray:
        """Images of the validation split, which nothing else is done with."""
        return flat(self.images.validation.x[:512])


def flat(images: np.ndarray) -> np.ndarray:
    """Images as rows of pixels."""
    return images.reshape(len(images), -1)


def work(*, quick: bool, steps: int, more: int, batch: int) -> Work:
    """Train the float network.

    Args:
      quick: a small network on digits.
      steps: of the float network.
      more: steps of training with rounded weights.
      batch: images of a step.
    """
    images = data.load("digits" if quick else "fashion_mnist")
    widths = (16, 8, 10) if quick else (300, 100, 10)
    start = jax.jit(_networks.MLP(widths).init)(
        jax.random.key(0), flat(images.train.x[:1])
    )
    made = Work(layers=layers(start), images=images, batch=batch, steps=more)
    network = in_jax(made, steps=steps)
    for x, y in made.batches(steps, seed=0):
        state = network.step(x, y)
    return dataclasses.replace(made, layers=layers(state.params), quick=quick)


def variables(layers: Layers) -> dict[str, Any]:
    """Layers as variables of ``_networks.MLP``."""
    return {
        "params": {
            f"Dense_{i}": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}
            for i, (kernel, bias) in enumerate(layers)
        }
    }


def layers(variables: Any) -> Layers:
    """The opposite."""
    params = variables["params"]
    return [
        (np.asarray(layer["kernel"]), np.asarray(layer["bias"]))
        for layer in (params[f"Dense_{i}"] for i in range(len(params)))
    ]


def network(layers: Layers, product: Any = None) -> _networks.MLP:
    """The network of some layers, with a product of one's own."""
    return _networks.MLP(tuple(len(bias) for _, bias in layers), product)


def in_jax(
    work: Work,
    fn: Callable[..., Any] | None = None,
    compressor: jc.Compressor | None = None,
    steps: int | None = None,
) -> Trained:
    """A network that is trained in JAX.

    Args:
      work: whose network it is.
      fn: ``(variables, x) -> logits``, if not the float network.
      compressor: of its weights.
      steps: until the learning rate is 0, if not those of the work.
    """
    model: Any = network(work.layers).apply if fn is None else fn
    schedule = optax.cosine_decay_schedule(work.rate, steps or work.steps)

    def loss(view: Any, batch: Any) -> jax.Array:
        return _training.loss(model(view, batch["x"]), batch["y"])

    init, step = jc.train_step(loss, optax.adam(schedule), compressor, donate=True)
    state = init(variables(work.layers))
    run = jax.jit(model)

    def update(x: np.ndarray, y: np.ndarray) -> Any:
        nonlocal state
        state, _ = step(state, {"x": x, "y": y})
        return state

    def predict(x: np.ndarray) -> Any:
        params = state.params
        if compressor is not None:
            params = jc.dense(compressor.finalize(params, state.compression))
        return run(params, x)

    return Trained(update, predict)


def weights_off(
    layers: Layers, rounded: Callable[[Layers], Mapping[str, Predict]]
) -> dict[str, float]:
    """Return how far rounding moves the weights, in percent of their norm, by variant.

    One layer without bias shows its weights to whoever gives it unit vectors.
    """
    moved: dict[str, float] = collections.defaultdict(float)
    for kernel, bias in layers:
        unit = np.eye(len(kernel), dtype=np.float32)
        for name, predict in rounded([(kernel, np.zeros_like(bias))]).items():
            seen = np.asarray(predict(unit))
            moved[name] += float(((seen - kernel) ** 2).sum())
    norm = sum(float((kernel**2).sum()) for kernel, _ in layers)
    return {name: 100 * (square / norm) ** 0.5 for name, square in moved.items()}
