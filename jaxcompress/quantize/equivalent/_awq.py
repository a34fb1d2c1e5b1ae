# SPDX-License-Identifier: Apache-2.0
"""Activation-aware weight quantization: links rescaled by how much channels are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._axes import AxisOrMap
from ..._compressor import Compressor
from ...formats import Format
from ...layerwise import STATS, Matrices, matrices
from ...numerics import EXACT
from .._fake import fake_quant
from .._granularity import Granularity
from ..scales._following import absmax
from ..scales._stateful import AnyScale, as_stateful
from ._compressors import move_given
from ._links import Bound, ByPath, Link, by_channel, rescale, spread, unless_dead

Round = Callable[[str, jax.Array], jax.Array]
Leaves = Mapping[str, jax.Array]


def awq(
    links: Sequence[Link],
    fmt: Format,
    *,
    granularity: Granularity,
    scale: AnyScale = absmax,
    grid: int = 20,
    axis: AxisOrMap = None,
) -> Compressor:
    """Rescale links so that rounding the weights changes what layers give least.

    For each link ``s = rms(x)**alpha`` of the inputs ``x`` of its channels, divided by the
    square root of its largest times its smallest. ``alpha`` is the one of a grid from 0 to
    1 with the least ``tr(dW^T G dW)``, summed over the consumers, where
    ``dW = Q(W s) / s - W`` and ``G = x^T x``. Zero is among them: by this measure rounding
    is never worse than without. The function stays the same; the weights are rounded by
    the quantizer that follows, which has to have the same format, granularity and scale.

    Every update that is given ``stats=`` moves the parameters, so give it once; all others
    leave them as they are. Links are searched in order, each by what the ones before have
    made of its leaves. The statistics do not fit the moved parameters: before a quantizer
    that needs some itself (GPTQ), compress with this first and observe again. A channel
    that is never read is left alone, and zeros stay zeros.

    Args:
      links: which channels; all consumers of a link share ``s``.
      fmt: the format of the quantizer that follows.
      granularity: its granularity.
      scale: its scales; those with a state are chosen anew for each candidate.
      grid: steps of alpha; ``grid + 1`` are tried.
      axis: the consumers' contraction axes: None where they are the axes of the link,
        but for those of stacked layers; axes, or ``{glob: axes}`` such as
        ``program.weight_axes(...).contraction``. A convolution needs it.

    Raises:
      TypeError: if ``scale`` chooses no scales.
      ValueError: if ``grid`` is not positive; in ``init``, if a link does not fit the
        parameters, or the granularity a consumer; in ``update``, if a consumer has no
        statistics or its axes do not fit them.

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
    if grid < 1:
        raise ValueError(f"grid={grid}: one step is the least.")

    chosen = as_stateful(scale)

    def rounded(path: str, x: jax.Array) -> jax.Array:
        shape = granularity.scale_shape(path, x.shape)
        return fake_quant(x, fmt, scale_shape=shape, scale=chosen)

    def check(bound: list[Bound], leaves: ByPath) -> None:
        for link in bound:
            for path in link.consumers:
                granularity.scale_shape(path, leaves[path].shape)

    def move(bound: list[Bound], leaves: ByPath, stats: Mapping[str, Any]) -> ByPath:
        wide = {
            p: x.astype(jnp.promote_types(x.dtype, jnp.float32))
            for p, x in leaves.items()
        }
        scales: list[jax.Array] = []
        for link in bound:
            layouts = {
                p: _layout(p, leaves[p].shape, stats[p], axes, axis)
                for p, axes in link.consumers.items()
            }
            now = rescale({p: wide[p] for p in layouts}, bound[: len(scales)], scales)
            grams = {p: stats[p].gram for p in layouts}
            scales.append(_search(link, layouts, rounded, grid, now, grams))
        return rescale(leaves, bound, scales)

    return move_given(links, move, STATS, what="nothing is rescaled", check=check)


def _search(
    link: Bound,
    layouts: Mapping[str, Matrices],
    rounded: Round,
    grid: int,
    weights: Leaves,
    stats: Leaves,
) -> jax.Array:
    """The best scales of one link, ``dims``."""
    # (batch, features, features): layers and groups are rows of a batch.
    grams = {p: g.reshape(-1, *g.shape[-2:]) for p, g in stats.items()}
    rms = _rms(link, layouts, grams)

    def loss(alpha: jax.Array) -> jax.Array:
        total, s = jnp.zeros(()), _scales(rms, alpha)
        for path, w in weights.items():
            along = spread(s, w.shape, link.consumers[path])
            change = layouts[path].split(rounded(path, w * along) / along - w)
            shaped = jnp.matmul(grams[path], change, precision=EXACT)
            total += jnp.sum(change * shaped)
        return total

    alphas = jnp.linspace(0, 1, grid + 1)
    losses = lax.map(
        loss, alphas
    )  # one after another: each needs copies of the weights
    best = jnp.argmin(jnp.where(jnp.isnan(losses), jnp.inf, losses))
    return _scales(rms, alphas[best])


def _rms(link: Bound, layouts: Mapping[str, Matrices], grams: Leaves) -> jax.Array:
    """How much each channel is read, ``dims``; up to a factor of all."""
    total = jnp.zeros(link.dims)
    for path, axes in link.consumers.items():
        known = layouts[path]
        squares = jnp.diagonal(grams[path], axis1=-2, axis2=-1)[:, :, None]
        outputs = math.prod(known.shape) // (known.batch * known.features)
        whole = jnp.broadcast_to(squares, (*squares.shape[:2], outputs))
        total += jnp.mean(by_channel(known.join(whole), link.dims, axes), axis=-1)
    return jnp.sqrt(total)


def _scales(rms: jax.Array, alpha: jax.Array) -> jax.Array:
    live = rms > 0
    s = jnp.where(live, rms, 1) ** alpha
    largest = jnp.max(s, where=live, initial=0)
    smallest = jnp.min(s, where=live, initial=jnp.inf)
    return jnp.where(live, unless_dead(s / jnp.sqrt(largest * smallest)), 1)


def _layout(
    path: str,
    shape: tuple[int, ...],
    stats: Any,
    axes: tuple[int, ...],
    given: AxisOrMap,
) -> Matrices:
    """The layout of a consumer, which is summed over along the axes of its link."""
    if given is None:
        own = tuple(sorted(axes))[stats.count.ndim :]  # axes of stacked layers lead
        if math.prod(shape[a] for a in own) == stats.gram.shape[-1]:
            given = own
    return matrices(path, shape, stats, given)
