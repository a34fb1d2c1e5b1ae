# SPDX-License-Identifier: Apache-2.0
"""Three networks for Fashion-MNIST, each in any width."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

import jaxcompress as jc

from .. import _resnet20
from ._names import CONV, DENSE


class Lenet(nn.Module):
    """Two hidden dense layers."""

    width: int = 300

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images to logits."""
        x = nn.relu(nn.Dense(self.width)(x.reshape(len(x), -1)))
        return nn.Dense(10)(nn.relu(nn.Dense(self.width // 3)(x)))


class ConvNet(nn.Module):
    """Two strided convolutions and two dense layers: 1.2 million parameters."""

    width: int = 16
    hidden: int = 750

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images to logits."""
        for width in (self.width, 2 * self.width):
            x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
        x = x.reshape(len(x), -1)
        if self.hidden:
            x = nn.relu(nn.Dense(self.hidden)(x))
        return nn.Dense(10)(x)


class ResNet8(nn.Module):
    """A strided convolution and three residual blocks with batch norms."""

    width: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images to logits."""
        x = nn.Conv(self.width, (3, 3), strides=2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        for stage in range(3):
            x = _resnet20.Block(self.width * 2**stage, min(stage + 1, 2))(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


def whole(name: str, *, tiny: bool = False) -> nn.Module:
    """Make a network in its full width; a few channels for a trial."""
    if name == DENSE:
        return Lenet(12 if tiny else 300)
    if name == CONV:
        return ConvNet(4, 8) if tiny else ConvNet()
    return ResNet8(4 if tiny else 16)


def narrowed(model: nn.Module, kept: float) -> nn.Module:
    """Make the same network with a share of the channels of every layer."""
    match model:
        case ConvNet():
            return ConvNet(round(kept * model.width), round(kept * model.hidden))
        case Lenet():
            return Lenet(round(kept * model.width))
        case ResNet8():
            return ResNet8(round(kept * model.width))
    raise TypeError(f"model must be one of the networks of this file, got {model!r}.")


def student(*, tiny: bool = False) -> nn.Module:
    """Make the small student: two convolutions and one dense layer."""
    return ConvNet(4 if tiny else 8, 0)


def evaluated(model: nn.Module) -> Callable[..., Any]:
    """Return the network in evaluation mode, a function of ``(variables, x)``."""
    return lambda variables, x: model.apply(variables, x)


def sliced(
    model: nn.Module,
    variables: Any,
    x: jax.Array,
    score: Any,
    kept: float,
    **extras: Any,
) -> tuple[Any, float]:
    """Remove the channels of every group that a score ranks lowest.

    Args:
      model: the network.
      variables: its variables.
      x: images.
      score: one of ``jc.structured.scores``.
      kept: share of each group that is kept.
      **extras: what the score needs.

    Returns:
      Variables of ``narrowed(model, kept)``, and the seconds that it took without
      compilation.
    """
    start = time.perf_counter()
    groups = jc.trace_axes(evaluated(model), variables, x)
    traced = time.perf_counter()
    rank = jax.jit(lambda variables: score(groups, variables, **extras))
    rank = rank.lower(variables).compile()
    compiled = time.perf_counter()
    scores = rank(variables)
    masks = {}
    for name, group in groups.prunable.items():
        best = np.argsort(-np.asarray(scores[name]))[: round(kept * group.size)]
        masks[name] = np.isin(np.arange(group.size), best)
    arrays = jax.tree.map(np.asarray, variables)
    small = jc.structured.slice_params(arrays, groups.plan(masks))
    return small, time.perf_counter() - compiled + traced - start


def initial(model: nn.Module, x: jax.Array, seed: int) -> Any:
    """Return random variables."""
    return model.init(jax.random.key(seed), jnp.asarray(x[:1]))
