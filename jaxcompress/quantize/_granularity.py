# SPDX-License-Identifier: Apache-2.0
"""Granularity: which weights share a scale."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from .._arguments import check_whole
from .._axes import (
    AxesLike,
    check_axes,
    contraction_axes,
    layer_axes,
    output_axes,
    warn_if_unmatched,
)
from .._warn import warn


class Granularity(Protocol):
    """Says how many scales a leaf has along each of its axes."""

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the scale: of the leaf's rank, each dimension dividing the leaf's."""
        ...


@dataclasses.dataclass(frozen=True)
class PerTensor:
    """One scale for the whole leaf, or one for each layer of a stack.

    Attributes:
      axes: which axes stack layers (``Axes(layers=0)``, ``{glob: Axes(...)}`` or
        ``weight_axes(fn, params, x)``). Each layer then has its own scale. With None the
        whole leaf shares one.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerTensor(axes=jc.Axes(layers=0)).scale_shape("layers/kernel", (12, 64, 64))
      (12, 1, 1)
    """

    axes: AxesLike = None

    def __post_init__(self) -> None:
        check_axes(self.axes)

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The layer dimensions, 1 elsewhere."""
        layers = layer_axes(path, shape, self.axes)
        return tuple(n if i in layers else 1 for i, n in enumerate(shape))


@dataclasses.dataclass(frozen=True)
class PerChannel:
    """One scale for each output channel.

    Attributes:
      axes: where the outputs of each leaf lie: None for the default of a matrix,
        ``Axes(outputs=-1)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerChannel().scale_shape("Dense_0/kernel", (784, 300))
      (1, 300)
      >>> convolution = jc.PerChannel(axes=jc.Axes(outputs=-1))
      >>> convolution.scale_shape("Conv_0/kernel", (3, 3, 16, 32))
      (1, 1, 1, 32)
    """

    axes: AxesLike = None

    def __post_init__(self) -> None:
        check_axes(self.axes)

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The output and layer dimensions, 1 elsewhere."""
        outputs = output_axes(path, shape, self.axes)
        return tuple(n if i in outputs else 1 for i, n in enumerate(shape))


@dataclasses.dataclass(frozen=True)
class PerGroup:
    """One scale for each ``size`` consecutive weights that are summed together.

    Several contraction axes (an attention output projection sums over heads and head
    features) are read as one long axis in their order. A group stays within the last of
    them if it fits there, else it spans whole slices of it.

    Attributes:
      size: weights in a group.
      axes: which axes of each leaf are summed over: None for the default of a matrix,
        ``Axes(contraction=0)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      otherwise: granularity of the leaves that groups of this size do not divide, such as
        ``PerChannel()`` or ``PerGroup(16)``; each is named by a warning. None: they are
        refused. ``prune.patterns.fits(PerGroup(64))`` as ``where=`` leaves them out.

    Example:
      >>> import jaxcompress as jc
      >>> jc.PerGroup(64).scale_shape("Dense_0/kernel", (256, 300))
      (4, 300)
      >>> heads = jc.PerGroup(64, axes=jc.Axes(contraction=(0, 1)))
      >>> heads.scale_shape("attention/out/kernel", (8, 32, 256))  # two heads a group
      (4, 1, 256)
    """

    size: int
    axes: AxesLike = None
    otherwise: Granularity | None = None

    def __post_init__(self) -> None:
        check_whole(size=self.size)
        if self.size < 1:
            raise ValueError(
                f"PerGroup takes a group size of 1 or more weights, got {self.size}."
            )
        check_axes(self.axes)
        if isinstance(self.otherwise, type) or not (
            self.otherwise is None or hasattr(self.otherwise, "scale_shape")
        ):
            raise TypeError(
                "otherwise must be a granularity such as PerChannel(), or None, got "
                f"{self.otherwise!r}."
            )

    def scale_shape(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """The leaf's shape, with the number of groups along the contraction axes."""
        groups = self._groups(path, shape)
        if groups is not None:
            return groups
        reason = self.misfit(path, shape)
        if self.otherwise is None:
            raise ValueError(
                f"{path!r}: {reason} Use a divisor, "
                "PerGroup(..., otherwise=PerChannel()), or give this leaf to another "
                "compressor with `where=` or `partition`."
            )
        return with_axes(self.otherwise, self.axes).scale_shape(path, shape)

    def fallback(self, path: str, shape: Sequence[int]) -> str | None:
        """Return which granularity takes the place of this one, and why; None if none."""
        reason = self.misfit(path, shape)
        if reason is None or self.otherwise is None:
            return None
        instead = with_axes(self.otherwise, self.axes)
        deeper = getattr(instead, "fallback", lambda path, shape: None)(path, shape)
        return deeper or f"{path!r} is quantized by {instead}: {reason}"

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why a leaf cannot be divided into groups, or None if it can."""
        if self._groups(path, shape) is not None:
            return None
        axes = contraction_axes(path, shape, self.axes)
        lengths = [shape[axis] for axis in axes]
        where = f"axis {axes[0]}" if len(axes) == 1 else f"axes {axes}"
        return (
            f"the group size must divide {where} of {tuple(shape)}, of length "
            f"{' x '.join(map(str, lengths))}, got {self.size}."
        )

    def _groups(self, path: str, shape: Sequence[int]) -> tuple[int, ...] | None:
        """The number of groups along each axis; None if the size does not divide them."""
        axes = contraction_axes(path, shape, self.axes)
        groups, left = list(shape), self.size
        for axis in reversed(axes):
            tile = math.gcd(left, shape[axis])
            groups[axis], left = shape[axis] // tile, left // tile
            if tile != shape[axis]:
                break
        return tuple(groups) if left == 1 else None


def scale_shapes(
    granularity: Granularity, shapes: Mapping[str, Sequence[int]]
) -> dict[str, tuple[int, ...]]:
    """The shapes of the scales of several leaves.

    Args:
      granularity: which weights share a scale.
      shapes: the shape of each leaf, by path.

    Warns:
      UserWarning: once, naming all leaves that a ``PerGroup(otherwise=)`` gives another
        granularity; and if ``axes`` names no leaf.
    """
    warn_if_unmatched(getattr(granularity, "axes", None), list(shapes))
    fallback = getattr(granularity, "fallback", lambda path, shape: None)
    texts = [text for p, shape in shapes.items() if (text := fallback(p, shape))]
    if texts:
        warn("\n".join(texts))
    return {p: tuple(granularity.scale_shape(p, s)) for p, s in shapes.items()}


def with_axes(granularity: Granularity, axes: AxesLike) -> Granularity:
    """The granularity with ``axes`` filled in, unless it has its own or takes none."""
    if axes is None or getattr(granularity, "axes", axes) is not None:
        return granularity
    return cast(Granularity, dataclasses.replace(cast(Any, granularity), axes=axes))
