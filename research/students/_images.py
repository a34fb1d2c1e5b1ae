# SPDX-License-Identifier: Apache-2.0
"""What students see: a share of the images, and views of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxcompress import distill

from ..data import Split


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
        "mixed": blended with one another; "smooth noise": no images at all.
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
