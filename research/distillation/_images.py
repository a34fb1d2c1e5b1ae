# SPDX-License-Identifier: Apache-2.0
"""What students see: a share of the images, views of them, and images made up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxcompress import distill

from ..data import Split

SMOOTH = 0.01  # weight of the total variation, beside the cross-entropy of the label
RATE = 0.05  # of Adam; pixels are from 0 to 1


def subset(train: Split, share: float, seed: int) -> np.ndarray:
    """Indices of a share of the examples, of each class alike."""
    shuffled = np.random.RandomState(seed).permutation(len(train))
    lined_up = shuffled[np.argsort(train.y[shuffled], kind="stable")]
    return np.sort(lined_up[:: round(1 / share)])


def views_of(
    kind: str, x: np.ndarray, y: np.ndarray, *, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """So many views of every image, fixed, so that a teacher answers each once.

    Args:
      kind: "": the images themselves; "shifted": by up to a fourteenth of their side;
        "mixed": blended with one another; "smooth noise" and "invented": no images
        at all, and what a teacher's images are made up from.
      x: images ``(n, h, w, c)``.
      y: float ``(n, classes)``, shares of the classes.
      number: of views an image.
      seed: of everything random.

    Returns:
      ``(n * number, h, w, c)`` and their shares; those of noise are zeros.
    """
    if not kind:
        return x, y
    key, shape = jax.random.key(seed), (number * len(x), *x.shape[1:])
    x, y = np.concatenate([x] * number), np.concatenate([y] * number)
    if kind == "shifted":
        return _shifted(x, seed), y
    if kind == "mixed":
        both = jnp.concatenate([x.reshape(len(x), -1), y], -1)
        both = np.asarray(distill.mixup(key, both))
        return both[:, : -y.shape[-1]].reshape(shape), both[:, -y.shape[-1] :]
    coarse = (len(x), shape[1] // 4, shape[2] // 4, shape[3])
    smooth = jax.image.resize(jax.random.uniform(key, coarse), shape, "linear")
    return np.asarray(smooth), np.zeros_like(y)


def _shifted(x: np.ndarray, seed: int) -> np.ndarray:
    reach = max(1, x.shape[1] // 14)
    by = np.random.RandomState(seed).randint(0, 2 * reach + 1, (len(x), 2))
    margin = ((0, 0), (reach, reach), (reach, reach), (0, 0))
    padded, shifted = np.pad(x, margin), np.empty_like(x)
    height, width = x.shape[1:3]
    for i, (down, right) in enumerate(by):
        shifted[i] = padded[i, down : down + height, right : right + width]
    return shifted


def inventor(
    logits_of: Callable[[Any, jax.Array], jax.Array], steps: int
) -> Callable[..., jax.Array]:
    """A function ``(params, start, labels) -> images``, to be compiled.

    Args:
      logits_of: ``(params, images) -> logits`` of the teacher.
      steps: of gradient descent.
    """

    def loss(x: jax.Array, params: Any, labels: jax.Array) -> jax.Array:
        cross = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_of(params, x), labels
        )
        return cross + SMOOTH * distill.total_variation(x)

    def invent(params: Any, start: jax.Array, labels: jax.Array) -> jax.Array:
        tx, box = optax.adam(RATE), lambda x: jnp.clip(x, 0, 1)
        return distill.invert(loss, start, tx, steps, params, labels, project=box)[0]

    return invent
