# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100, and the narrower ones that pruned ones are compared with."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from ..data import Dataset
from ._records import largest_file

SMALL, SMALL_MACS = "small dense", "small dense, equal MACs"
CONTROLS = (SMALL, SMALL_MACS)


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

    def fits(sizes: Sequence[int]) -> bool:
        return 4 * sum((i + 1) * o for i, o in itertools.pairwise(sizes)) <= nbytes

    return _widest(fits, dataset, widths)


def no_more_macs(macs: int, dataset: Dataset, widths: Sequence[int]) -> Perceptron:
    """The widest dense network with no more multiply-accumulates for one image.

    Those of a perceptron are its weights. Otherwise as ``no_larger``.
    """

    def fits(sizes: Sequence[int]) -> bool:
        return _macs(sizes) <= macs

    return _widest(fits, dataset, widths)


def no_more_bytes(models: Iterable[nn.Module], nbytes: int, x: np.ndarray) -> nn.Module:
    """The first network whose float32 parameters take no more than ``nbytes``.

    Or the last, where even that takes more.

    Args:
      models: from large to small.
      nbytes: bytes of a file.
      x: an input of the networks, with a batch axis.
    """
    model: Any = None
    for model in models:
        shapes = jax.eval_shape(model.init, jax.random.key(0), x)
        if 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes)) <= nbytes:
            break
    return model


def control(
    name: str,
    records: Sequence[Any],
    asked: float,
    dataset: Dataset,
    widths: Sequence[int],
) -> Perceptron:
    """The small dense network that the pruned ones of a sparsity are compared with.

    Args:
      name: ``SMALL``: of as many bytes as their largest file; ``SMALL_MACS``: of as many
        multiply-accumulates as they would need if zeros were skipped.
      records: of the pruned networks.
      asked: the sparsity.
      dataset: what it is for.
      widths: of the network that was pruned.
    """
    if name == SMALL:
        return no_larger(largest_file(records, asked, CONTROLS), dataset, widths)
    left = (1 - asked) * _macs(_sizes(dataset, widths))
    return no_more_macs(int(left + 1e-6), dataset, widths)


def _widest(
    fits: Callable[[Sequence[int]], bool], dataset: Dataset, widths: Sequence[int]
) -> Perceptron:
    narrow = tuple(widths)
    for narrow in narrowed(widths):
        if fits(_sizes(dataset, narrow)):
            break
    return Perceptron(dataset.num_classes, narrow)


def _sizes(dataset: Dataset, widths: Sequence[int]) -> tuple[int, ...]:
    return (dataset.train.x[0].size, *widths, dataset.num_classes)


def _macs(sizes: Sequence[int]) -> int:
    return sum(i * o for i, o in itertools.pairwise(sizes))
