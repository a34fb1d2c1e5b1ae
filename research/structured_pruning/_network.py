# SPDX-License-Identifier: Apache-2.0
"""A residual network with batch norm, and the one that has the widths of a plan."""

from __future__ import annotations

import dataclasses
from functools import partial

import flax.linen as nn
import jax

import jaxcompress as jc


@dataclasses.dataclass(frozen=True)
class Stage:
    """Blocks between which nothing changes its shape.

    Attributes:
      width: channels that the blocks add to.
      inner: channels between the two convolutions of each block.
    """

    width: int
    inner: tuple[int, ...]


class Block(nn.Module):
    """Two convolutions beside a shortcut, which is one, too, where the shape changes."""

    width: int
    inner: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Images ``(n, h, w, c)`` to images."""
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9)
        y = nn.Conv(self.inner, (3, 3), self.stride, use_bias=False)(x)
        y = nn.Conv(self.width, (3, 3), use_bias=False)(nn.relu(norm()(y)))
        if self.stride > 1:
            x = norm()(nn.Conv(self.width, (1, 1), self.stride, use_bias=False)(x))
        return nn.relu(x + norm()(y))


class ResNet(nn.Module):
    """A convolution, stages that halve the image, a mean over space, a dense layer."""

    classes: int
    stages: tuple[Stage, ...]
    stem_stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Images ``(n, h, w, c)`` to logits ``(n, classes)``."""
        stem, stride = self.stages[0].width, self.stem_stride
        size = max(3, stride + 1)
        x = nn.Conv(stem, (size, size), stride, use_bias=False)(x)
        x = nn.relu(nn.BatchNorm(not train, momentum=0.9)(x))
        for i, stage in enumerate(self.stages):
            for j, inner in enumerate(stage.inner):
                x = Block(stage.width, inner, 2 if i and not j else 1)(x, train)
        return nn.Dense(self.classes)(x.mean((1, 2)))


def resnet(
    classes: int, widths: tuple[int, ...], blocks: int, stem_stride: int
) -> ResNet:
    """The dense network: as many blocks in every stage, as wide inside as outside."""
    stages = tuple(Stage(width, (width,) * blocks) for width in widths)
    return ResNet(classes, stages, stem_stride)


def as_wide(model: ResNet, plan: jc.structured.Plan) -> ResNet:
    """A network like another, built with the widths that a plan for channels leaves."""
    number, stages = 0, []
    for stage in model.stages:
        names = [f"params/Block_{number + j}" for j in range(len(stage.inner))]
        inner = tuple(plan.shape(f"{name}/Conv_0/kernel")[-1] for name in names)
        width = plan.shape(f"{names[0]}/Conv_1/kernel")[-1]
        stages.append(Stage(width, inner))
        number += len(names)
    return model.clone(stages=tuple(stages))
