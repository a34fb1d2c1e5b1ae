# SPDX-License-Identifier: Apache-2.0
"""Patterns that prune in groups: blocks, slices, and equal counts per output."""

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
    """Block sparsity: prune the rectangular blocks with the lowest mean score.

    Blocks at the end of an axis may be smaller, and their mean covers the weights they
    have: 9 x 9 weights in blocks of 4 x 4 are nine blocks, one of them a single weight.
    At least one block of a leaf is kept.

    Attributes:
      shape: extent of a block along each axis of the leaf: a number, or None
        for the whole axis. It must list every axis, since the last
        two of a convolution are channels in Flax and space in Equinox. One ``...`` fills
        in any number of axes with extent 1, as in ``(..., 4, 4)``. Numbers above the
        length of an axis are reduced to it.

    Raises:
      ValueError: if an extent is below 1 or there are several ``...``; when called, if
        the leaf has a different rank or is a single block.

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
            raise ValueError(
                f"extents must be positive integers, None or `...`, got {self}."
            )
        if sum(b is ... for b in self.shape) > 1:
            raise ValueError(f"shape must contain at most one `...`, got {self}.")

    def extents(self, path: str, shape: Sequence[int]) -> tuple[int, ...]:
        """Return the extent of a block along each axis of a leaf.

        Raises:
          ValueError: if the leaf and the block differ in rank.
        """
        extents: list[Extent] = list(self.shape)
        if ... in extents:
            at = extents.index(...)
            extents[at : at + 1] = [1] * (len(shape) - len(extents) + 1)
        if len(extents) != len(shape):
            raise ValueError(f"{path!r}: {self._explain_rank(shape)}")
        return tuple(
            # Extents stay positive on an axis of length 0, which has no blocks.
            max(1, size if b is None or b is ... else min(int(b), size))
            for b, size in zip(extents, shape, strict=True)
        )

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why a leaf cannot be pruned in blocks, or None if it can."""
        axes = len(self.shape) - (... in self.shape)
        if len(shape) < axes or (len(shape) > axes and ... not in self.shape):
            return self._explain_rank(shape)
        return _explain_single(shape, self.extents(path, shape), "block")

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Give every weight the mean score of its block, as float32 or wider."""
        return _spread(scores, self.extents(path, scores.shape))

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune the number of blocks that hold ``count`` weights on average, rounded."""
        check_fits(self, path, scores)
        return _keep_blocks(scores, self.extents(path, scores.shape), count)

    def _explain_rank(self, shape: Sequence[int]) -> str:
        return (
            f"blocks must have one extent per axis of {tuple(shape)}, of rank "
            f"{len(shape)}, got {_format_extents(self.shape)}. Use `...` for axes with "
            "extent 1, as in (..., 4, 4), and `by_path` for different blocks per leaf."
        )


@dataclasses.dataclass(frozen=True)
class Slices:
    """Structured sparsity: prune whole rows, columns or filters, one per output.

    A slice is all weights of one output. The slices with the lowest mean score are
    pruned; at least one per leaf is kept. A slice of the last layer is a class, so
    exclude that layer.

    Attributes:
      axes: the axes to slice along: the outputs of each leaf, and its stacked layers.
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
        """Return the extent of a slice along each axis: 1 along output axes."""
        outputs = output_axes(path, shape, self.axes)
        return tuple(1 if a in outputs else max(1, n) for a, n in enumerate(shape))

    def misfit(self, path: str, shape: Sequence[int]) -> str | None:
        """Return the reason why a leaf cannot be pruned in slices, or None if it can."""
        return _explain_single(shape, self.extents(path, shape), "slice")

    def spread(self, path: str, scores: jax.Array) -> jax.Array:
        """Give every weight the mean score of its slice, as float32 or wider."""
        return _spread(scores, self.extents(path, scores.shape))

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune the number of slices that hold ``count`` weights, rounded."""
        check_fits(self, path, scores)
        return _keep_blocks(scores, self.extents(path, scores.shape), count)


@dataclasses.dataclass(frozen=True)
class PerOutput:
    """Prune the same number of weights from every output, those with the lowest scores.

    Wanda uses this pattern. Every output keeps at least one weight.

    Attributes:
      axes: the output axes of each leaf: None for the default of a matrix,
        ``Axes(outputs=-1)``, ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
        Weights are compared along all other axes.

    Raises:
      ValueError: when called, if the default axis is ambiguous or out of range, or each
        output has only one weight.

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
        """Return the reason why a leaf cannot be pruned, or None if it can."""
        outputs = output_axes(path, shape, self.axes)
        per_output = math.prod(n for a, n in enumerate(shape) if a not in outputs)
        if per_output < 2 or 0 in shape:
            return f"each output of {tuple(shape)} must have at least two weights."
        return None

    def __call__(self, path: str, scores: jax.Array, count: jax.Array) -> jax.Array:
        """Prune ``count / outputs`` weights from each output, rounded."""
        check_fits(self, path, scores)
        axes = output_axes(path, scores.shape, self.axes)
        outputs = math.prod(scores.shape[a] for a in axes)
        per_output = scores.size // outputs
        number = jnp.minimum(_divide_rounded(count, outputs), per_output - 1)

        def find_lowest(scores: jax.Array) -> jax.Array:
            return smallest(scores, number)

        # The outermost vmap removes the last axis first, so axis numbers stay valid. A
        # reshape would gather outputs that are sharded over devices.
        for axis in axes:
            find_lowest = jax.vmap(find_lowest, in_axes=axis, out_axes=axis)
        return ~find_lowest(scores)


def block_sums(x: jax.Array, extents: Sequence[int]) -> jax.Array:
    """Sum over each block, as float32 or wider.

    Args:
      x: float array of any shape.
      extents: extent of a block along each axis; the last block may be smaller.

    Returns:
      Array with one element per block, of the rank of ``x``.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    tiles = _count_tiles(x.shape, extents)
    ends = [t * b - size for t, b, size in zip(tiles, extents, x.shape, strict=True)]
    if any(ends):
        x = jnp.pad(x, [(0, end) for end in ends])
    return reduce_tiles(jnp.sum, x, tiles)


def block_sizes(shape: Sequence[int], extents: Sequence[int]) -> jax.Array:
    """Return the number of weights per block, float32; broadcasts with ``block_sums``."""
    sizes = jnp.ones((1,) * len(shape))
    tiles = _count_tiles(shape, extents)
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
    """Broadcast one value per block to a whole leaf."""
    pairs = zip(_count_tiles(shape, extents), extents, strict=True)
    expanded = expand_tiles(blocks, [t * b for t, b in pairs])
    return expanded[tuple(slice(size) for size in shape)]


def _count_tiles(shape: Sequence[int], extents: Sequence[int]) -> tuple[int, ...]:
    """Count the blocks along each axis."""
    return tuple(-(-size // b) for size, b in zip(shape, extents, strict=True))


def _block_means(scores: jax.Array, extents: Sequence[int]) -> jax.Array:
    return block_sums(scores, extents) * (1 / block_sizes(scores.shape, extents))


def _spread(scores: jax.Array, extents: Sequence[int]) -> jax.Array:
    return expand_blocks(_block_means(scores, extents), scores.shape, extents)


def _keep_blocks(
    scores: jax.Array, extents: Sequence[int], count: jax.Array
) -> jax.Array:
    """Prune the blocks with the lowest means; keep at least one."""
    means = _block_means(scores, extents)
    if scores.size % means.size:  # blocks of several sizes, fewer than 2**24
        number = jnp.round(jnp.asarray(count, jnp.float32) * (means.size / scores.size))
        number = number.astype(jnp.uint32)
    else:
        number = _divide_rounded(count, scores.size // means.size)
    drop = smallest(means, jnp.minimum(number, means.size - 1))
    return ~expand_blocks(drop, scores.shape, extents)


def _divide_rounded(count: jax.Array, size: int) -> jax.Array:
    """Divide and round to the nearest integer, halves up; exact, without overflow."""
    count = jnp.asarray(count).astype(jnp.uint32)
    remainder = count % size
    return count // size + (remainder >= size - remainder).astype(jnp.uint32)


def _explain_single(
    shape: Sequence[int], extents: Sequence[int], group: str
) -> str | None:
    """Return the reason against a leaf that is one group, or None if it has several."""
    if math.prod(_count_tiles(shape, extents)) < 2:
        return f"{tuple(shape)} is a single {group}, and at least one is always kept."
    return None


def _format_extents(shape: Sequence[Extent]) -> str:
    return "(" + ", ".join("..." if b is ... else str(b) for b in shape) + ")"
