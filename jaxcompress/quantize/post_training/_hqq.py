# SPDX-License-Identifier: Apache-2.0
"""Half-quadratic quantization (HQQ): data-free scales that are robust to outliers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_whole
from ..._signatures import name_defaults
from ...formats import Format
from ...leaves import scales_as_floats
from ...numerics import expand_tiles, reduce_tiles
from .._fake import fake_quant
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax

Grid = tuple[jax.Array, jax.Array | None]


@name_defaults
def hqq(
    iterations: int = 5,
    p: float = 0.7,
    *,
    strength: float = 2.0,
    growth: float = 1.1,
    start: Scale = absmax,
    ranges: Sequence[float] = (1.0, 0.8, 0.6, 0.45),
) -> Scale:
    """Choose scales with HQQ: minimize the sum of ``|error| ** p``, without any data.

    Compare it with ``scales.mse()``, which is faster and needs no data either. In two
    pretrained networks ``mse`` was better at 4 and 3 bits, and ``hqq`` mostly
    worse than ``absmax`` at 4 bits, and several times worse at 8 bits per channel
    (``benchmarks/README.md``). In a small convolutional network, GPTQ with these scales
    was the best of what was tried at 2 bits (``research/bit_widths``).

    With p below 1, large errors of a few weights cost little, so outliers do not set the
    scale. They may well matter to the outputs: least |error| ** p is not least error.
    Two steps alternate: a proximal step of the norm splits off the outlier part of the
    error, and least squares fits the grid to the rest. This converges quickly to a point
    near its start. It therefore starts from several ranges and returns the best iterate
    for each tile.

    Args:
      iterations: number of iterations from each range.
      p: exponent of the norm, in (0, 1].
      strength: weight of the quadratic term that couples the two steps, for errors in
        units of the initial scale.
      growth: factor on ``strength`` after each iteration.
      start: function that chooses the initial scales. The sum of ``|error| ** p`` is never
        larger than theirs.
      ranges: factors on the initial scales, one per start.

    Returns:
      A ``Scale``: a function ``(weights, shape, format) -> (scale, zero_point)``.

    Raises:
      ValueError: if p is outside (0, 1] or ``iterations`` is below 1.

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
      Models", https://mobiusml.github.io/hqq_blog. The authors fit a float
      zero point and fix the scale. Here the scale is fitted and zero stays on the grid,
      so pruned weights stay zero: the zero point is an integer that only shifts the ends
      of the grid.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be in (0, 1], got p={p}.")
    check_whole(iterations=iterations)
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got iterations={iterations}.")

    def choose(weights: jax.Array, shape: Sequence[int], fmt: Format) -> Grid:
        stored, zero_point = start(weights, shape, fmt)
        first = scales_as_floats(stored, weights.dtype), zero_point
        unit = expand_tiles(first[0], weights.shape)

        def round_to(grid: Grid) -> jax.Array:
            return fake_quant(weights, fmt, scale_shape=shape, scale=fixed(*grid))

        def compute_cost(rounded: jax.Array) -> jax.Array:
            error = jnp.abs(weights - rounded) / unit
            return reduce_tiles(jnp.sum, error**p, shape)

        def step(i: jax.Array, carry: Any) -> Any:
            grid, rounded, best, least_cost = carry
            error = (weights - rounded) / unit
            size = jnp.abs(error)
            shrunk = size - size ** (p - 1) / (strength * growth**i)
            target = weights - unit * jnp.sign(error) * jnp.maximum(shrunk, 0)
            grid = _fit(grid, rounded, target, fmt)
            rounded = round_to(grid)
            cost = compute_cost(rounded)
            return grid, rounded, *_select_better(grid, cost, best, least_cost)

        def run_from(carry: Any, factor: jax.Array) -> tuple[Any, None]:
            grid = first[0] * factor, first[1]
            rounded = round_to(grid)
            best, least_cost = _select_better(grid, compute_cost(rounded), *carry)
            state = grid, rounded, best, least_cost
            state = lax.fori_loop(0, iterations, step, state)
            return state[2:], None

        carry = first, compute_cost(round_to(first))
        (best, _), _ = lax.scan(run_from, carry, jnp.asarray(ranges, first[0].dtype))
        return best

    return choose


def _select_better(
    grid: Grid, cost: jax.Array, best: Grid, least_cost: jax.Array
) -> tuple[Grid, jax.Array]:
    """Select the grid with the lower cost for each tile; return it and its cost."""
    improved = cost < least_cost
    best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), grid, best)
    return best, jnp.where(improved, cost, least_cost)


def _fit(grid: Grid, rounded: jax.Array, target: jax.Array, fmt: Format) -> Grid:
    """Fit the grid to a target by least squares, with the assigned codes fixed."""
    scale, zero_point = grid
    levels = rounded / expand_tiles(scale, rounded.shape)
    if zero_point is not None:
        count = rounded.size // scale.size
        shift = reduce_tiles(jnp.sum, rounded - target, scale.shape) / (count * scale)
        # The zero point shifts the ends of the grid; it must stay a valid code.
        zero_point = jnp.clip(zero_point + jnp.round(shift), fmt.low, fmt.high)
    product = reduce_tiles(jnp.sum, levels * target, scale.shape)
    square = reduce_tiles(jnp.sum, levels**2, scale.shape)
    fitted = product / jnp.where(square > 0, square, 1)
    return jnp.where(fitted > jnp.finfo(fitted.dtype).tiny, fitted, scale), zero_point
