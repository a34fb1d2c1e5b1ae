# SPDX-License-Identifier: Apache-2.0
"""Activation-aware weight quantization (AWQ): rescale links by activation magnitude."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_whole
from ..._axes import Axes, AxesLike
from ..._compressor import Compressor
from ..._signatures import name_defaults
from ...formats import Format
from ...layerwise import STATS, Matrices, matrices
from ...numerics import EXACT
from .._fake import fake_quant
from .._granularity import Granularity, scale_shapes
from ..scales._stateful import AnyScale, as_stateful, suited
from ._compressors import move_given
from ._links import Bound, ByPath, Link, by_channel, rescale, spread, unless_dead

FakeQuant = Callable[[str, jax.Array], jax.Array]
Leaves = Mapping[str, jax.Array]


@name_defaults
def awq(
    links: Sequence[Link],
    fmt: Format,
    *,
    granularity: Granularity,
    scale: AnyScale = suited,
    grid: int = 20,
    axes: AxesLike = None,
) -> Compressor:
    """Rescale links (AWQ) so that weight rounding changes layer outputs least.

    Use it before 3 or 4 bit weight quantization. The function stays the same. The
    quantizer that follows rounds the weights; it must have the same format, granularity
    and scale.

    For each link ``s = rms(x)**alpha``, where ``x`` are the inputs of its channels. ``s``
    is then divided by the square root of its largest times its smallest value. A grid
    search over ``alpha`` in [0, 1] minimizes ``tr(dW^T G dW)``, summed over the consumers,
    where ``dW = Q(W s) / s - W`` and ``G = x^T x``. The grid contains ``alpha = 0``, so by
    this measure the result is never worse than rounding without AWQ.

    Every update with ``stats=`` moves the parameters, so pass it once; all other updates
    leave them unchanged. Links are searched in order; each search sees the weights as
    rescaled by the links before. The statistics do not fit the moved parameters: if the
    quantizer needs statistics, too (GPTQ), compress with AWQ first and observe again. A
    channel without input is left alone, and zeros stay zeros.

    Args:
      links: which channels to rescale; all consumers of a link share ``s``.
      fmt: format of the quantizer that follows.
      granularity: its granularity.
      scale: its scales; scales with a state are recomputed for each candidate.
      grid: number of steps of ``alpha``; ``grid + 1`` values are tried.
      axes: which axes of the consumers are summed over. None takes the axes of the link,
        without those of stacked layers. A convolution needs ``{glob: Axes(...)}`` or
        ``weight_axes(fn, params, x)``.

    Raises:
      TypeError: if ``scale`` is not a scale.
      ValueError: if ``grid`` is not positive; in ``init``, if a link does not fit the
        parameters or the granularity does not fit a consumer; in ``update``, if a consumer
        has no statistics or its axes do not fit them.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.formats import Int
      >>> from jaxcompress.quantize.equivalent import Link, awq
      >>> keys = jax.random.split(jax.random.key(0))
      >>> scale, w = jnp.ones(16).at[3].set(50), jax.random.normal(keys[0], (16, 8))
      >>> params = {"scale": scale, "w": w}
      >>> def fn(params, x):
      ...     return (x * params["scale"][None]) @ params["w"]
      >>> x = jax.random.normal(keys[1], (64, 16))
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
      >>> link, rows = Link({"scale": 0}, {"w": 0}), jc.PerChannel()
      >>> moved = jc.compress(awq([link], Int(3), granularity=rows), params, stats=stats)
      >>> def error(params):
      ...     int3 = jc.dense(jc.compress(jc.weight_quantization(bits=3), params))
      ...     return jnp.linalg.norm(fn(int3, x) - fn(params, x))
      >>> bool(error(moved) < error(params) / 2)
      True

    References:
      Lin et al., 2023, https://arxiv.org/abs/2306.00978
    """
    check_whole(grid=grid)
    if grid < 1:
        raise ValueError(f"grid must be at least 1 step, got {grid}.")

    quantizer_scale = as_stateful(scale)

    def fake(path: str, x: jax.Array) -> jax.Array:
        shape = granularity.scale_shape(path, x.shape)
        return fake_quant(x, fmt, scale_shape=shape, scale=quantizer_scale)

    def check(bound: list[Bound], leaves: ByPath) -> None:
        consumers = [path for link in bound for path in link.consumers]
        scale_shapes(granularity, {p: leaves[p].shape for p in consumers})

    def move(bound: list[Bound], leaves: ByPath, stats: Mapping[str, Any]) -> ByPath:
        wide = {
            p: x.astype(jnp.promote_types(x.dtype, jnp.float32))
            for p, x in leaves.items()
        }
        scales: list[jax.Array] = []
        for link in bound:
            layouts = {
                p: _layout(p, leaves[p].shape, stats[p], channels, axes)
                for p, channels in link.consumers.items()
            }
            current = rescale(
                {p: wide[p] for p in layouts}, bound[: len(scales)], scales
            )
            grams = {p: stats[p].gram for p in layouts}
            scales.append(_search(link, layouts, fake, grid, current, grams))
        return rescale(leaves, bound, scales)

    return move_given(links, move, STATS, what="nothing is rescaled", check=check)


def _search(
    link: Bound,
    layouts: Mapping[str, Matrices],
    fake: FakeQuant,
    grid: int,
    weights: Leaves,
    stats: Leaves,
) -> jax.Array:
    """Return the best scales of one link, ``dims``."""
    # (batch, features, features): stacked layers and groups form the batch.
    grams = {p: g.reshape(-1, *g.shape[-2:]) for p, g in stats.items()}
    rms = _rms(link, layouts, grams)

    def loss(alpha: jax.Array) -> jax.Array:
        total, s = jnp.zeros(()), _scales(rms, alpha)
        for path, w in weights.items():
            spread_s = spread(s, w.shape, link.consumers[path])
            error = layouts[path].split(fake(path, w * spread_s) / spread_s - w)
            weighted = jnp.matmul(grams[path], error, precision=EXACT)
            total += jnp.sum(error * weighted)
        return total

    alphas = jnp.linspace(0, 1, grid + 1)
    # One candidate after another: each needs copies of the weights.
    losses = lax.map(loss, alphas)
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    return _scales(rms, alphas[best])


def _rms(link: Bound, layouts: Mapping[str, Matrices], grams: Leaves) -> jax.Array:
    """Return the RMS input of each channel, ``dims``, up to a common factor."""
    total = jnp.zeros(link.dims)
    for path, axes in link.consumers.items():
        layout = layouts[path]
        squares = jnp.diagonal(grams[path], axis1=-2, axis2=-1)[:, :, None]
        outputs = math.prod(layout.shape) // (layout.batch * layout.features)
        per_weight = jnp.broadcast_to(squares, (*squares.shape[:2], outputs))
        total += jnp.mean(by_channel(layout.join(per_weight), link.dims, axes), axis=-1)
    return jnp.sqrt(total)


def _scales(rms: jax.Array, alpha: jax.Array) -> jax.Array:
    is_live = rms > 0
    s = jnp.where(is_live, rms, 1) ** alpha
    largest = jnp.max(s, where=is_live, initial=0)
    smallest = jnp.min(s, where=is_live, initial=jnp.inf)
    return jnp.where(is_live, unless_dead(s / jnp.sqrt(largest * smallest)), 1)


def _layout(
    path: str,
    shape: tuple[int, ...],
    stats: Any,
    channels: tuple[int, ...],
    axes: AxesLike,
) -> Matrices:
    """Return the layout of a consumer; without ``axes`` the link's axes are summed over."""
    if axes is None:
        stacked = stats.count.ndim  # the axes of stacked layers come first
        contraction = tuple(sorted(channels))[stacked:]
        if math.prod(shape[a] for a in contraction) == stats.gram.shape[-1]:
            axes = Axes(contraction=contraction)
    return matrices(path, shape, stats, axes)
