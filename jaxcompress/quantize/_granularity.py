# SPDX-License-Identifier: Apache-2.0
"""Granularity: which weights share a scale."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from .._axes import AxisOrMap, chosen_axes, contraction_axis, output_axes


class Granularity(Protocol):
    """Says how many scales a leaf has along each of its axes."""

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the scale: of the leaf's rank, each dimension dividing the leaf's."""
        ...


@dataclasses.dataclass(frozen=True)
class PerTensor:
    """One scale for the whole leaf, or for each layer of a stack.

    Attributes:
      layers: the axis along which ``nn.scan`` or ``vmap`` stacks layers (several axes, or
        ``{glob: axis}``), each with a scale of its own; None: there is none.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerTensor(layers=0).scale_shape("layers/kernel", (12, 64, 64))
      (12, 1, 1)
    """

    layers: AxisOrMap = None

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """1 along every axis that is not one of layers."""
        kept = chosen_axes(path, shape, self.layers)
        return tuple(n if i in kept else 1 for i, n in enumerate(shape))


@dataclasses.dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel.

    Attributes:
      axis: output axis; None for the default of a matrix, an axis, several axes (with
        the axis along which ``nn.scan`` stacks layers), or ``{glob: axis}``, which
        ``jaxcompress.program.weight_axes`` reads from the function.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerChannel().scale_shape("Dense_0/kernel", (784, 300))
      (1, 300)
      >>> jc.PerChannel(axis=-1).scale_shape("Conv_0/kernel", (3, 3, 16, 32))
      (1, 1, 1, 32)
    """

    axis: AxisOrMap = None

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The output dimensions, 1 elsewhere."""
        kept = output_axes(path, shape, self.axis)
        return tuple(n if i in kept else 1 for i, n in enumerate(shape))


@dataclasses.dataclass(frozen=True)
class PerGroup:
    """One scale for each ``size`` consecutive weights along the contraction axis.

    Attributes:
      size: weights in a group.
      axis: contraction axis; None for the default of a matrix, an axis, or
        ``{glob: axis}``.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerGroup(64).scale_shape("Dense_0/kernel", (256, 300))
      (4, 300)
    """

    size: int
    axis: AxisOrMap = None

    def __post_init__(self) -> None:
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"PerGroup({self.size}): a group has 1 or more weights.")

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The leaf's shape, with groups in place of weights along the axis."""
        axis = contraction_axis(path, shape, self.axis)
        if shape[axis] % self.size:
            raise ValueError(
                f"{path!r}: axis {axis} of {tuple(shape)} is no multiple of the group "
                f"size {self.size}. Take a divisor of {shape[axis]}, or leave this leaf "
                "to another compressor with `where=` or `partition`."
            )
        return tuple(n // self.size if i == axis else n for i, n in enumerate(shape))
