# SPDX-License-Identifier: Apache-2.0
"""The networks of the study; ``widths`` makes each of them narrower."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ..common import Perceptron


class ConvNet(nn.Module):
    """Two convolutions and two dense layers."""

    classes: int
    widths: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images ``(n, h, w, c)``, h and w multiples of 4, to logits."""
        *convolutions, dense = self.widths
        for width in convolutions:
            x = _max_pool(nn.relu(nn.Conv(width, (3, 3))(x)))
        x = nn.relu(nn.Dense(dense)(x.reshape(len(x), -1)))
        return nn.Dense(self.classes)(x)


class Characters(nn.Module):
    """The same perceptron over the embeddings of the last 16 characters."""

    classes: int
    widths: Sequence[int] = (300, 100)
    context: int = 16
    features: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Characters ``(n, length)`` to logits of the next one."""
        x = nn.Embed(self.classes, self.features)(x[:, -self.context :])
        # Its first name: what is drawn at the start depends on it.
        return Perceptron(self.classes, self.widths, name="LeNet300100_0")(x)


class ResNet(nn.Module):
    """A convolution, blocks that halve the image after the first, a mean, a dense layer.

    Group norms instead of batch norms, so that all of its state is parameters.
    """

    classes: int
    widths: Sequence[int] = (16, 32, 64)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images ``(n, h, w, c)`` to logits ``(n, classes)``."""
        first, *_ = self.widths
        x = nn.relu(_norm()(nn.Conv(first, (3, 3), 2, use_bias=False)(x)))
        for i, width in enumerate(self.widths):
            stride = 2 if i else 1
            y = _norm()(nn.Conv(width, (3, 3), stride, use_bias=False)(x))
            y = _norm()(nn.Conv(width, (3, 3), use_bias=False)(nn.relu(y)))
            if stride > 1:
                x = _norm()(nn.Conv(width, (1, 1), stride, use_bias=False)(x))
            x = nn.relu(x + y)
        return nn.Dense(self.classes)(x.mean((1, 2)))


MODELS: dict[str, type[nn.Module]] = {
    "lenet_300_100": Perceptron,
    "conv": ConvNet,
    "resnet": ResNet,
    "characters": Characters,
}


def _norm() -> nn.Module:
    return nn.GroupNorm(num_groups=1)


def _max_pool(x: jax.Array) -> jax.Array:
    # The gradient of nn.max_pool (select-and-scatter) takes as long on a CPU as all the
    # rest of the step.
    n, h, w, c = x.shape
    return jnp.max(x.reshape(n, h // 2, 2, w // 2, 2, c), axis=(2, 4))
