# SPDX-License-Identifier: Apache-2.0
"""One value for each tile of an array, and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp


def expand_tiles(tiles: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Broadcast one value a tile to the whole array.

    Args:
      tiles: array of the rank of ``shape``; each dimension divides that of ``shape``.
      shape: shape of the result.

    Example:
      >>> import jax.numpy as jnp
      >>> expand_tiles(jnp.array([[1., 2.]]), (2, 4)).tolist()
      [[1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0]]
    """
    split, spread = [], []
    for have, want in zip(tiles.shape, shape, strict=True):
        split += [have, 1]
        spread += [have, want // have if have else 1]
    return jnp.broadcast_to(tiles.reshape(split), spread).reshape(shape)


def reduce_tiles(
    reduce: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    x: jax.Array,
    tiles: Sequence[int],
) -> jax.Array:
    """One value for each tile of an array.

    Args:
      reduce: ``(array, axes) -> array`` without these axes, such as ``jnp.max``.
      x: array whose dimensions are multiples of ``tiles``.
      tiles: how many tiles there are along each axis.

    Returns:
      Array of shape ``tiles``.

    Example:
      >>> import jax.numpy as jnp
      >>> reduce_tiles(jnp.max, jnp.array([[1., 5., 2., 3.]]), (1, 2)).tolist()
      [[5.0, 3.0]]
    """
    split: list[int] = []
    axes: list[int] = []
    for have, want in zip(tiles, x.shape, strict=True):
        # Only what is divided gets two axes: XLA for CPU is slow at reductions between
        # axes of length 1.
        if have not in (1, want):
            split.append(have)
        if have != want:
            axes.append(len(split))
        split.append(want // have if have not in (1, want) else want)
    return reduce(x.reshape(split), tuple(axes)).reshape(tuple(tiles))


def tiles_as_rows(x: jax.Array, tiles: Sequence[int]) -> jax.Array:
    """The elements of every tile, as one row each.

    Args:
      x: array whose dimensions are multiples of ``tiles``.
      tiles: how many tiles there are along each axis.

    Returns:
      Array (number of tiles, elements of a tile), tiles in the order of the axes.

    Example:
      >>> import jax.numpy as jnp
      >>> tiles_as_rows(jnp.array([[1., 5.], [2., 3.]]), (1, 2)).tolist()
      [[1.0, 2.0], [5.0, 3.0]]
    """
    split: list[int] = []
    for have, want in zip(tiles, x.shape, strict=True):
        split += [have, want // have if have else 1]
    order = [*range(0, len(split), 2), *range(1, len(split), 2)]
    return x.reshape(split).transpose(order).reshape(math.prod(tiles), -1)
