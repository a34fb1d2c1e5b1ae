# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100, and narrower ones of the same kind."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import flax.linen as nn
import jax
import numpy as np

from ..data import Dataset


class Perceptron(nn.Module):
    """LeCun's two-layer perceptron; other ``widths`` make it another network."""

    classes: int
    widths: Sequence[int] = (300, 100)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images ``(n, h, w, c)`` to logits ``(n, classes)``."""
        x = x.reshape(len(x), -1)
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.classes)(x)


def narrowed(widths: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Ever smaller widths of as many layers.

    The first shrinks to one unit before the others fall below 16, then below 4: most
    weights are in the first, and two units between layers would be no network.
    """
    for floor in (16, 4, 1):
        for shrink in np.linspace(1, 0, 400, endpoint=False):
            first, *rest = (max(1, round(shrink * width)) for width in widths)
            yield (first, *(max(floor, width) for width in rest))


def no_larger(nbytes: int, dataset: Dataset, widths: Sequence[int]) -> Perceptron:
    """The widest dense network whose float32 parameters take no more than ``nbytes``.

    Or the smallest with as many layers, where even that takes more.
    """
    narrow = tuple(widths)
    for narrow in narrowed(widths):
        sizes = (dataset.train.x[0].size, *narrow, dataset.num_classes)
        if 4 * sum((i + 1) * o for i, o in itertools.pairwise(sizes)) <= nbytes:
            break
    return Perceptron(dataset.num_classes, narrow)
