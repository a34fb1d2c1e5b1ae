# SPDX-License-Identifier: Apache-2.0
"""Flax networks for the benchmarks of what works on any function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


class MLP(nn.Module):
    """Dense layers with ReLU, and with a product of one's own."""

    widths: tuple[int, ...]
    dot_general: Callable[..., jax.Array] | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        *hidden, last = self.widths
        for width in hidden:
            x = nn.relu(nn.Dense(width, dot_general=self.dot_general)(x))
        return nn.Dense(last, dot_general=self.dot_general)(x)


class ConvNet(nn.Module):
    """Convolutions, each halved in space by its stride, and a dense layer."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths:
            x = nn.relu(nn.Conv(width, (3, 3), strides=2)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))


class Block(nn.Module):
    """Two convolutions around a shortcut."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def norm(y: jax.Array) -> jax.Array:
            return nn.BatchNorm(use_running_average=True)(y)

        y = nn.relu(norm(nn.Conv(self.width, (3, 3), use_bias=False)(x)))
        y = norm(nn.Conv(self.width, (3, 3), use_bias=False)(y))
        if x.shape[-1] != self.width:
            x = nn.Conv(self.width, (1, 1))(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Blocks, a mean over space and a dense layer."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.widths[0], (3, 3))(x))
        for width in self.widths:
            x = Block(width)(x)
        return nn.Dense(10)(x.mean((1, 2)))


class Layer(nn.Module):
    """Attention and two dense layers, normalized before."""

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, _: Any) -> tuple[jax.Array, None]:
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(y, y)
        y = nn.gelu(nn.Dense(4 * self.width)(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width)(y), None


class Transformer(nn.Module):
    """Layers in a scan, rematerialized, with one embedding for both ends."""

    width: int
    layers: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        embedding = nn.Embed(64, self.width)
        stack = nn.scan(
            nn.remat(Layer),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        x, _ = stack(self.width)(embedding(tokens), None)
        return embedding.attend(nn.LayerNorm()(x))


def model(name: str, *, quick: bool) -> tuple[nn.Module, jax.Array]:
    """A network, and an input for it.

    Args:
      name: ``"mlp"`` (784-512-512-512-10, 256 examples), ``"conv"`` (32-64-128 channels
        on 32 x 32 x 3, 64 examples), ``"resnet"`` (16-32-64 channels, 32 examples) or
        ``"transformer"`` (3 layers of width 64, 8 sequences of 32 tokens).
      quick: a small network and few examples.
    """
    key = jax.random.key(0)
    if name == "mlp":
        x = jax.random.normal(key, (8, 16) if quick else (256, 784))
        return MLP((16, 10) if quick else (512, 512, 512, 10)), x
    if name == "conv":
        x = jax.random.normal(key, (2, 8, 8, 3) if quick else (64, 32, 32, 3))
        return ConvNet((4, 8) if quick else (32, 64, 128)), x
    if name == "resnet":
        x = jax.random.normal(key, (2, 8, 8, 3) if quick else (32, 32, 32, 3))
        return ResNet((4, 8) if quick else (16, 32, 64)), x
    tokens = jnp.arange(16 if quick else 256).reshape(-1, 8 if quick else 32) % 64
    return Transformer(8 if quick else 64, 2 if quick else 3), tokens


def function(model: nn.Module, x: jax.Array) -> tuple[Callable[..., Any], Any]:
    """A network as a function of ``(variables, x)``, and its variables."""

    def fn(variables: Any, x: jax.Array) -> Any:
        return model.apply(variables, x)

    return fn, model.init(jax.random.key(1), x)
