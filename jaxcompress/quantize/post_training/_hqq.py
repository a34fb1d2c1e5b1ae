# SPDX-License-Identifier: Apache-2.0
"""Half-quadratic quantization: scales for which most weights lie near the grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ...formats import Format
from ...leaves import scales_as_floats
from ...numerics import expand_tiles, reduce_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax

Grid = tuple[jax.Array, jax.Array | None]


def hqq(
    iterations: int = 5,
    p: float = 0.7,
    *,
    strength: float = 2.0,
    growth: float = 1.1,
    start: Scale = absmax,
    ranges: Sequence[float] = (1.0, 0.8, 0.6, 0.45),
) -> Scale:
    """A ``Scale`` that makes the sum of ``|error| ** p`` small, without any data.

    With p below 1 large errors of few weights cost little. Two steps alternate: what of
    the error is taken for an outlier, by the proximal step of the norm; and the least
    squares fit of the grid to the rest. That ends soon, near to where it began; so it
    begins at several ranges, and the best of all iterates is taken for each tile.

    Args:
      iterations: how many, from each of the ranges.
      p: of the norm, in (0, 1].
      strength: of the quadratic term that ties the two steps, for errors in units of the
        first scale.
      growth: what it is multiplied by every time.
      start: the scales to start from; the result is never worse than these.
      ranges: what they are multiplied by, for each start.

    Returns:
      A function ``(weights, shape, format) -> (scale, zero_point)``.

    Raises:
      ValueError: for p outside (0, 1], or fewer than one iteration.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kernel = jax.random.normal(jax.random.key(0), (256, 8))
      >>> def error(scale):
      ...     int3 = jc.weight_quantization(bits=3, scale=scale)
      ...     small = jc.compress(int3, {"kernel": kernel})["kernel"]
      ...     return jnp.mean(jnp.abs(small.dense() - kernel) ** 0.7)
      >>> bool(error(hqq()) < 0.9 * error(jc.quantize.scales.absmax))
      True

    References:
      Badri and Shaji, 2023, "Half-Quadratic Quantization of Large Machine Learning
      Models", https://mobiusml.github.io/hqq_blog. There a float zero point moves and the
      scale stays. Here zero stays on the grid, so that pruned weights stay zero: the
      zero point is an integer that only says where the grid ends, and the scale moves.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p={p}: the norm is of a power in (0, 1].")
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: there is 1 or more.")

    def choose(weights: jax.Array, shape: Sequence[int], fmt: Format) -> Grid:
        stored, zero_point = start(weights, shape, fmt)
        first = scales_as_floats(stored, weights.dtype), zero_point
        unit = expand_tiles(first[0], weights.shape)

        def rounded(grid: Grid) -> jax.Array:
            return fake_quant(weights, fmt, scale_shape=shape, scale=fixed(*grid))

        def cost(near: jax.Array) -> jax.Array:
            return reduce_tiles(jnp.sum, (jnp.abs(weights - near) / unit) ** p, shape)

        def step(i: jax.Array, carry: Any) -> Any:
            grid, near, best, least = carry
            error = (weights - near) / unit
            size = jnp.abs(error)
            shrunk = size - size ** (p - 1) / (strength * growth**i)
            target = weights - unit * jnp.sign(error) * jnp.maximum(shrunk, 0)
            grid = _fit(grid, near, target, fmt)
            near = rounded(grid)
            return grid, near, *_better(grid, cost(near), best, least)

        def begin(carry: Any, share: jax.Array) -> tuple[Any, None]:
            grid = first[0] * share, first[1]
            near = rounded(grid)
            best, least = _better(grid, cost(near), *carry)
            found = lax.fori_loop(0, iterations, step, (grid, near, best, least))
            return found[2:], None

        carry = first, cost(rounded(first))
        (best, _), _ = lax.scan(begin, carry, jnp.asarray(ranges, first[0].dtype))
        return best

    return choose


def _better(
    grid: Grid, cost: jax.Array, best: Grid, least: jax.Array
) -> tuple[Grid, jax.Array]:
    """The better of two grids for each tile, and its cost."""
    won = cost < least
    best = jax.tree.map(lambda new, old: jnp.where(won, new, old), grid, best)
    return best, jnp.where(won, cost, least)


def _fit(grid: Grid, near: jax.Array, target: jax.Array, fmt: Format) -> Grid:
    """The grid whose levels, as they are assigned, are nearest to a target in squares."""
    scale, zero_point = grid
    levels = near / expand_tiles(scale, near.shape)
    if zero_point is not None:
        count = near.size // scale.size
        shift = reduce_tiles(jnp.sum, near - target, scale.shape) / (count * scale)
        # The end of the grid moves with the zero point; it stays a code.
        zero_point = jnp.clip(zero_point + jnp.round(shift), fmt.low, fmt.high)
    both = reduce_tiles(jnp.sum, levels * target, scale.shape)
    square = reduce_tiles(jnp.sum, levels**2, scale.shape)
    found = both / jnp.where(square > 0, square, 1)
    return jnp.where(found > jnp.finfo(found.dtype).tiny, found, scale), zero_point
