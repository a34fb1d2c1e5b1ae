# SPDX-License-Identifier: Apache-2.0
"""Patterns of groups: blocks, whole slices, the same number from every output."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..._axes import AxesLike, check_axes, output_axes
from ...numerics import expand_tiles, reduce_tiles, smallest
from ._protocol import check_fits

Extent = int | None | types.EllipsisType


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Prune whole rectangular blocks, those with the lowest mean score.

    Blocks that stick out at the end of an axis are smaller, and their mean is over what
    they have: 9 x 9 weights in blocks of 4 x 4 are nine blocks, one of them a single
    weight. At least one block of a leaf is kept.

    Attributes:
      shape: extent of a block along each axis of the leaf: a number, which is cut to the
        length of the axis, or None for the whole axis. It names every axis, since the
        last two of a convolution are channels in Flax and space in Equinox; one ``...``
        stands for any number of axes with extent 1, as in ``(..., 4, 4)``.

    Raises:
      ValueError: for extents below 1 or several ``...``; and when called, for a leaf of
        another rank, and for one that is a single block.

    References:
      Narang et al., 2017, https://arxiv.org/abs/1711.02782

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 4.0, 0.1], [2.0, 2.0, 0.1, 0.1]])}
      >>> pruner = jc.magnitude_pruning(0.5, pattern=jc.prune.patterns.Blocks((2, 2)))
      >>> jc.compress(pruner, params)["kernel"].tolist()
      [[1.0, -3.0, 0.0, 0.0], [2.0, 2.0, 0.0, 0.0]]
    """

    shape: Sequence[Extent]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        numbers = [b for b in self.shape if b is not None and b is not ...]
        if not self.shape or not all(
            isinstance(b, int | np.integer) and b > 0 for b in numbers
        ):
            raise ValueError(f"{self}: extents are positive integers, None or `...`.")
        if sum(b is ... for b in self.shape) > 1:
            raise ValueError(f"{self}: one `...` at most.")

    def extents(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Extent of a block along each axis of a leaf.

        Raises:
          ValueError: if the leaf has another rank than the block.
        """
        named: list[Extent] = list(self.shape)
        if ... in named:
            at = named.index(...)
            named[at : at + 1] = [1] * (len(shape) - len(named) + 1)
        if len(named) != len(shape):
            raise ValueError(f"{path!r}: {self._rank_misfit(shape)}")
        return tuple(
            # An axis of length 0 has no blocks, but they do have an extent.
            max(1, size if b is None or b is ... else min(int(b), size))
            for b, size in zip(named, shape, strict=True)
        )

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Why a leaf cannot be pruned in blocks, or None if it can."""
        axes = len(self.shape) - (... in self.shape)
        if len(shape) < axes or (len(shape) > axes and ... not in self.shape):
            return self._rank_misfit(shape)
        return _single(shape, self.extents(path, shape), "block")

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Give every weight the mean score of its block, as float32 or wider."""
        return _spread(scores, self.extents(path, scores.shape))

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune as many blocks as hold ``count`` weights on average, rounded."""
        check_fits(self, path, scores)
        return _keep_blocks(scores, self.extents(path, scores.shape), count)

    def _rank_misfit(self, shape: Sequence[int]) -> str:
        return (
            f"blocks {_text(self.shape)} do not name the axes of {tuple(shape)}, of rank "
            f"{len(shape)}. Give an extent for each, or `...` for those with extent 1, as "
            "in (..., 4, 4); `by_path` gives other leaves other blocks."
        )


@dataclasses.dataclass(frozen=True)
class Slices:
    """Prune whole rows, columns or filters: all weights with one index along an axis.

    The slices with the lowest mean score fall; at least one of a leaf is kept. A slice
    of the last layer is a class: leave that layer out.

    Attributes:
      axes: which axes are indexed: the outputs of each leaf, and its stacked layers.
        None for the default of a matrix, ``Axes(outputs=-1)``, ``{glob: Axes(...)}`` or
        ``weight_axes(fn, params, x)``.

    Raises:
      ValueError: when called, if the default axis is ambiguous or out of range, or the
        leaf is a single slice.

    References:
      Li et al., 2016, https://arxiv.org/abs/1608.08710

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, -3.0, 2.0], [2.0, 0.1, 2.0]])}
      >>> pruner = jc.magnitude_pruning(0.4, pattern=jc.prune.patterns.Slices())
      >>> jc.compress(pruner, params)["kernel"].tolist()
      [[0.0, -3.0, 2.0], [0.0, 0.10000000149011612, 2.0]]
    """

    axes: AxesLike = None

    def __post_init__(self) -> None:
        check_axes(self.axes)

    def extents(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Extent of a slice along each axis of a leaf: 1 where it is indexed."""
        indexed = output_axes(path, shape, self.axes)
        return tuple(1 if a in indexed else max(1, n) for a, n in enumerate(shape))

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Why a leaf cannot be pruned in slices, or None if it can."""
        return _single(shape, self.extents(path, shape), "slice")

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Give every weight the mean score of its slice, as float32 or wider."""
        return _spread(scores, self.extents(path, scores.shape))

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune as many slices as hold ``count`` weights, rounded."""
        check_fits(self, path, scores)
        return _keep_blocks(scores, self.extents(path, scores.shape), count)


@dataclasses.dataclass(frozen=True)
class PerOutput:
    """Prune the same number of weights from every output, its lowest.

    Every output keeps at least one weight.

    Attributes:
      axes: where the outputs of each leaf lie: None for the default of a matrix,
        ``Axes(outputs=-1)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
        Weights are compared along all other axes.

    Raises:
      ValueError: when called, if the default axis is ambiguous or out of range, or every
        output has one weight only.

    References:
      Sun et al., 2023, https://arxiv.org/abs/2306.11695

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[1.0, -30.0], [2.0, 20.0]])}
      >>> pruner = jc.magnitude_pruning(0.5, pattern=jc.prune.patterns.PerOutput())
      >>> jc.compress(pruner, params)["kernel"].tolist()
      [[0.0, -30.0], [2.0, 0.0]]
    """

    axes: AxesLike = None

    def __post_init__(self) -> None:
        check_axes(self.axes)

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Why a leaf cannot be pruned so, or None if it can."""
        outputs = output_axes(path, shape, self.axes)
        each = math.prod(n for a, n in enumerate(shape) if a not in outputs)
        if each < 2 or 0 in shape:
            return f"an output of {tuple(shape)} has no two weights to choose from."
        return None

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune ``count / outputs`` weights from each output, rounded."""
        check_fits(self, path, scores)
        axes = output_axes(path, scores.shape, self.axes)
        outputs = math.prod(scores.shape[a] for a in axes)
        each = scores.size // outputs
        number = jnp.minimum(_rounded(count, outputs), each - 1)

        def lowest(scores: jax.Array) -> jax.Array:
            return smallest(scores, number)

        # From the outside the last axis goes first, so the others keep their numbers. No
        # reshape: it would gather outputs that lie on several devices.
        for axis in axes:
            lowest = jax.vmap(lowest, in_axes=axis, out_axes=axis)
        return ~lowest(scores)


def block_sums(x: jax.Array, extents: Sequence[int]) -> jax.Array:
    """Sum over each block, as float32 or wider.

    Args:
      x: float array of any shape.
      extents: of a block along each axis; the last one of an axis may stick out.

    Returns:
      Array with one element a block, of the rank of ``x``.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    tiles = _tiles(x.shape, extents)
    ends = [t * b - size for t, b, size in zip(tiles, extents, x.shape, strict=True)]
    if any(ends):
        wide = jnp.pad(wide, [(0, end) for end in ends])
    return reduce_tiles(jnp.sum, wide, tiles)


def block_sizes(shape: Sequence[int], extents: Sequence[int]) -> jax.Array:
    """How many weights each block has: float32, broadcasts against ``block_sums``."""
    sizes = jnp.ones((1,) * len(shape))
    tiles = _tiles(shape, extents)
    for axis, (size, b, t) in enumerate(zip(shape, extents, tiles, strict=True)):
        if size % b:
            along = np.full(t, b, np.float32)
            along[-1] = size % b
            ones = [t if a == axis else 1 for a in range(len(shape))]
            sizes = sizes * along.reshape(ones)
        else:
            sizes = sizes * b
    return sizes


def expand_blocks(
    blocks: jax.Array, shape: Sequence[int], extents: Sequence[int]
) -> jax.Array:
    """Broadcast one value a block to a whole leaf."""
    pairs = zip(_tiles(shape, extents), extents, strict=True)
    whole = expand_tiles(blocks, [t * b for t, b in pairs])
    return whole[tuple(slice(size) for size in shape)]


def _tiles(shape: Sequence[int], extents: Sequence[int]) -> tuple[int, ...]:
    """How many blocks there are along each axis."""
    return tuple(-(-size // b) for size, b in zip(shape, extents, strict=True))


def _means(scores: jax.Array, extents: Sequence[int]) -> jax.Array:
    return block_sums(scores, extents) * (1 / block_sizes(scores.shape, extents))


def _spread(scores: jax.Array, extents: Sequence[int]) -> jax.Array:
    return expand_blocks(_means(scores, extents), scores.shape, extents)


def _keep_blocks(
    scores: jax.Array, extents: Sequence[int], count: jax.Array
) -> jax.Array:
    """Keep all blocks but those with the lowest means, and at least one."""
    means = _means(scores, extents)
    if scores.size % means.size:  # blocks of several sizes, fewer than 2**24
        number = jnp.round(jnp.asarray(count, jnp.float32) * (means.size / scores.size))
        number = number.astype(jnp.uint32)
    else:
        number = _rounded(count, scores.size // means.size)
    drop = smallest(means, jnp.minimum(number, means.size - 1))
    return ~expand_blocks(drop, scores.shape, extents)


def _rounded(count: jax.Array, size: int) -> jax.Array:
    """``count / size`` to the nearest integer, a half up; exact, without overflow."""
    count = jnp.asarray(count).astype(jnp.uint32)
    rest = count % size
    return count // size + (rest >= size - rest).astype(jnp.uint32)


def _single(shape: Sequence[int], extents: Sequence[int], what: str) -> str | None:
    """The reason against a leaf of which all or nothing would be pruned."""
    if math.prod(_tiles(shape, extents)) < 2:
        return f"{tuple(shape)} is a single {what}, and one is always kept."
    return None


def _text(shape: Sequence[Extent]) -> str:
    return "(" + ", ".join("..." if b is ... else str(b) for b in shape) + ")"
