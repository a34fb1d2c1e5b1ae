# SPDX-License-Identifier: Apache-2.0
"""Teacher and student: the same strided convolutions, of many channels and of few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp


class Answers(NamedTuple):
    """What a network says of a batch, and what it holds on the way."""

    logits: jax.Array  # (n, classes)
    maps: jax.Array  # (n, h, w, channels) of the second layer, in both at one place
    pooled: jax.Array  # (n, channels): the mean over the positions of the last layer


class ByPatches(nn.Module):
    """A convolution as one product: patches times a matrix.

    The same function as ``nn.Conv`` with padding SAME. Inside the scan of a training XLA's
    convolutions on a CPU take three times as long.
    """

    features: int
    size: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``(n, h, w, c)`` to ``(n, ceil(h / stride), ceil(w / stride), features)``."""
        reach = [-(-side // self.stride) * self.stride for side in x.shape[1:3]]
        lacks = [
            max(far - self.stride + self.size - side, 0)
            for far, side in zip(reach, x.shape[1:3], strict=True)
        ]
        x = jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in lacks), (0, 0)))
        patches = [
            x[
                :,
                i : i + reach[0] - self.stride + 1 : self.stride,
                j : j + reach[1] - self.stride + 1 : self.stride,
            ]
            for i in range(self.size)
            for j in range(self.size)
        ]
        return nn.Dense(self.features, use_bias=False)(jnp.concatenate(patches, -1))


class Network(nn.Module):
    """Strided convolutions, each with a layer norm, and a dense layer.

    Attributes:
      classes: number of logits.
      widths: channels of the layers, two or more.
      patches: whether convolutions are made of products.
    """

    classes: int
    widths: Sequence[int]
    patches: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> Answers:
        """Images ``(n, h, w, c)`` to what the network says of them."""
        maps = []
        for i, width in enumerate(self.widths):
            size, stride = (3, 2) if i else (5, 3)
            if self.patches:
                layer: nn.Module = ByPatches(width, size, stride)
            else:
                layer = nn.Conv(
                    width, (size, size), strides=(stride, stride), use_bias=False
                )
            x = nn.relu(nn.LayerNorm()(layer(x)))
            maps.append(x)
        logits = nn.Dense(self.classes)(x.reshape(len(x), -1))
        return Answers(logits, maps[1], maps[-1].mean((1, 2)))
