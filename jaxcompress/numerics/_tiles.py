# SPDX-License-Identifier: Apache-2.0
"""Reduce an array to one value per tile, and broadcast back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from ._eager import one_program


def expand_tiles(tiles: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Broadcast one value per tile to the whole array.

    Args:
      tiles: array of the rank of ``shape``; each dimension divides that of ``shape``.
      shape: shape of the result.

    Example:
      >>> import jax.numpy as jnp
      >>> expand_tiles(jnp.array([[1., 2.]]), (2, 4)).tolist()
      [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    return _expand_tiles(tiles, tuple(shape))


@one_program("shape")
def _expand_tiles(tiles: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    split, spread = [], []
    for count, size in zip(tiles.shape, shape, strict=True):
        split += [count, 1]
        spread += [count, size // count if count else 1]
    return jnp.broadcast_to(tiles.reshape(split), spread).reshape(shape)


@one_program()
def divide_by_tiles(x: jax.Array, tiles: jax.Array) -> jax.Array:
    """Divide each tile of an array by its value, with the same bits in jit and eager.

    It multiplies by reciprocals. XLA replaces a division by a value that it sees being
    broadcast in the same way, so a quotient that is rounded next, such as exactly 63.5,
    would depend on what is compiled together.

    Args:
      x: float array whose dimensions are multiples of those of ``tiles``.
      tiles: array of the rank and dtype of ``x``, or a scalar.

    Example:
      >>> import jax.numpy as jnp
      >>> divide_by_tiles(jnp.array([[2., 4., 6., 8.]]), jnp.array([[2., 4.]])).tolist()
      [[1.0, 2.0, 1.5, 2.0]]
    """
    return x * (1 / tiles if not tiles.ndim else expand_tiles(1 / tiles, x.shape))


def reduce_tiles(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    tiles: Sequence[int],
) -> jax.Array:
    """Reduce each tile of an array to one value.

    Args:
      reduce: ``(array, axes) -> array`` without these axes, such as ``jnp.max``.
      x: array whose dimensions are multiples of ``tiles``.
      tiles: number of tiles along each axis.

    Returns:
      Array of shape ``tiles``.

    Example:
      >>> import jax.numpy as jnp
      >>> reduce_tiles(jnp.max, jnp.array([[1., 5., 2., 3.]]), (1, 2)).tolist()
      [[5.0, 3.0]]
    """
    return _reduce_tiles(reduce, x, tuple(tiles))


@one_program("reduce", "tiles")
def _reduce_tiles(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    tiles: tuple[int, ...],
) -> jax.Array:
    split: list[int] = []
    axes: list[int] = []
    for count, size in zip(tiles, x.shape, strict=True):
        # Only divided axes are split in two: XLA for CPU is slow at reductions between
        # axes of length 1.
        if count not in (1, size):
            split.append(count)
        if count != size:
            axes.append(len(split))
        split.append(size // count if count not in (1, size) else size)
    return reduce(x.reshape(split), tuple(axes)).reshape(tiles)


def tiles_as_rows(x: jax.Array, tiles: Sequence[int]) -> jax.Array:
    """Reshape an array so that each tile becomes one row.

    Args:
      x: array whose dimensions are multiples of ``tiles``.
      tiles: number of tiles along each axis.

    Returns:
      Array (number of tiles, elements of a tile), tiles in the order of the axes.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles_as_rows(jnp.array([[1., 5.], [2., 3.]]), (1, 2)).tolist()
      [[1.0, 2.0], [5.0, 3.0]]
    """
    split: list[int] = []
    for count, size in zip(tiles, x.shape, strict=True):
        split += [count, size // count if count else 1]
    order = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return x.reshape(split).transpose(order).reshape(math.prod(tiles), -1)
