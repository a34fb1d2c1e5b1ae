# SPDX-License-Identifier: Apache-2.0
"""Networks twice, in Flax and in PyTorch, with the same weights.

PyTorch is imported when it is asked for, because this repository does not depend on it.
"""

from __future__ import annotations

import importlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is one, too, where the shape changes."""

    width: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        def layer(x: jax.Array, size: int, stride: int) -> jax.Array:
            x = nn.Conv(self.width, (size, size), stride, use_bias=False)(x)
            return nn.BatchNorm(not train, momentum=0.9)(x)

        y = layer(nn.relu(layer(x, 3, self.stride)), 3, 1)
        return nn.relu(y + (x if self.stride == 1 else layer(x, 1, self.stride)))


class ResNet(nn.Module):
    """A strided convolution, three stages of blocks, a mean over space, a dense layer.

    With three blocks a stage, that is ResNet-20.
    """

    widths: tuple[int, ...]
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = nn.Conv(self.widths[0], (3, 3), 2, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        for i, width in enumerate(self.widths):
            for j in range(self.blocks):
                x = Block(width, 2 if i and not j else 1)(x, train)
        return nn.Dense(10)(x.mean((1, 2)))


def resnet_in_torch(model: ResNet, variables: Any) -> Any:
    """The same network as a PyTorch module, for images ``(n, c, h, w)``."""
    torch = importlib.import_module("torch")
    params, stats = variables["params"], variables["batch_stats"]

    def tensor(x: Any) -> Any:
        return torch.tensor(np.asarray(x))

    def set_values(layer: Any, **values: Any) -> None:
        with torch.no_grad():
            for name, value in values.items():
                getattr(layer, name).copy_(tensor(value))

    class Layer(torch.nn.Module):
        """A convolution, padded as in Flax, and its norm."""

        def __init__(self, conv: Any, norm: Any, seen: Any, stride: int) -> None:
            super().__init__()
            size, _, inputs, outputs = conv["kernel"].shape
            self.size, self.stride = size, stride
            self.conv = torch.nn.Conv2d(inputs, outputs, size, stride, bias=False)
            set_values(self.conv, weight=jnp.transpose(conv["kernel"], (3, 2, 0, 1)))
            self.norm = torch.nn.BatchNorm2d(outputs)
            set_values(
                self.norm,
                weight=norm["scale"],
                bias=norm["bias"],
                running_mean=seen["mean"],
                running_var=seen["var"],
            )

        def forward(self, x: Any) -> Any:
            n = x.shape[-1]
            lost = max((-(-n // self.stride) - 1) * self.stride + self.size - n, 0)
            low, high = lost // 2, lost - lost // 2
            x = torch.nn.functional.pad(x, (low, high, low, high))
            return self.norm(self.conv(x))

    def layer(own: Any, seen: Any, i: int, stride: int) -> Any:
        conv, norm = own[f"Conv_{i}"], own[f"BatchNorm_{i}"]
        return Layer(conv, norm, seen[f"BatchNorm_{i}"], stride)

    class TorchBlock(torch.nn.Module):
        def __init__(self, own: Any, seen: Any, stride: int) -> None:
            super().__init__()
            self.first = layer(own, seen, 0, stride)
            self.second = layer(own, seen, 1, 1)
            self.short = layer(own, seen, 2, stride) if stride > 1 else None

        def forward(self, x: Any) -> Any:
            y = self.second(torch.relu(self.first(x)))
            return torch.relu(y + (x if self.short is None else self.short(x)))

    class TorchResNet(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = layer(params, stats, 0, 2)
            self.blocks = torch.nn.Sequential(
                *(
                    TorchBlock(
                        params[f"Block_{i}"],
                        stats[f"Block_{i}"],
                        2 if i and not i % model.blocks else 1,
                    )
                    for i in range(len(model.widths) * model.blocks)
                )
            )
            last = params["Dense_0"]
            self.last = torch.nn.Linear(*last["kernel"].shape)
            set_values(self.last, weight=last["kernel"].T, bias=last["bias"])

        def forward(self, x: Any) -> Any:
            x = self.blocks(torch.relu(self.stem(x)))
            return self.last(x.mean((2, 3)))

    return TorchResNet()


WIDTH, HEADS, SHARED, FEATURES = 32, 4, 2, 8


def attention(params: Any, x: jax.Array) -> jax.Array:
    """Attention of four heads, two of which share their keys and values."""
    x = x @ params["in"]
    n, t, _ = x.shape
    q = (x @ params["q"]).reshape(n, t, SHARED, HEADS // SHARED, FEATURES)
    k, v = ((x @ params[name]).reshape(n, t, SHARED, FEATURES) for name in "kv")
    scores = jnp.einsum("ntsgd,nusd->nsgtu", q, k) / FEATURES**0.5
    mixed = jnp.einsum("nsgtu,nusd->ntsgd", jax.nn.softmax(scores), v)
    x = x + mixed.reshape(n, t, HEADS * FEATURES) @ params["o"]
    return x @ params["out"]


def attention_params() -> dict[str, jax.Array]:
    """Random weights of it."""
    shapes = {
        "in": (16, WIDTH), "q": (WIDTH, HEADS * FEATURES), "k": (WIDTH, SHARED * FEATURES),
        "v": (WIDTH, SHARED * FEATURES), "o": (HEADS * FEATURES, WIDTH), "out": (WIDTH, 3),
    }  # fmt: skip
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return {
        name: jax.random.normal(key, shape) / shape[0] ** 0.5
        for (name, shape), key in zip(shapes.items(), keys, strict=True)
    }


def attention_in_torch(params: dict[str, jax.Array]) -> Any:
    """The same as a PyTorch module, written as in most language models."""
    torch = importlib.import_module("torch")

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, kernel in params.items():
                layer = torch.nn.Linear(*kernel.shape, bias=False)
                layer.weight = torch.nn.Parameter(torch.tensor(np.asarray(kernel.T)))
                self.add_module({"in": "into"}.get(name, name), layer)

        def forward(self, x: Any) -> Any:
            x = self.into(x)
            n, t, _ = x.shape
            q = self.q(x).view(n, t, HEADS, FEATURES).transpose(1, 2)
            k, v = (
                layer(x)
                .view(n, t, SHARED, FEATURES)
                .transpose(1, 2)
                .repeat_interleave(HEADS // SHARED, 1)
                for layer in (self.k, self.v)
            )
            scores = torch.softmax(q @ k.transpose(-1, -2) / FEATURES**0.5, -1)
            mixed = (scores @ v).transpose(1, 2).reshape(n, t, -1)
            return self.out(x + self.o(mixed))

    return Attention()
