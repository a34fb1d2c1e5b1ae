# SPDX-License-Identifier: Apache-2.0
"""GPTQ and AdaRound as compressors."""

from __future__ import annotations

import jax

from ..._arguments import check_counts, check_flags
from ..._axes import AxesLike
from ..._combine import masked
from ..._compressor import Compressor
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ...formats import Format, Int
from .._granularity import Granularity, PerChannel, with_axes
from ..scales._fixed import fixed
from ..scales._following import Scale, absmax
from ..scales._stateful import suited
from ._adaround import adaround
from ._gptq import gptq
from ._layerwise import Grid, layerwise_quantization


@name_defaults
def gptq_quantization(
    bits: int = 4,
    *,
    fmt: Format | None = None,
    symmetric: bool = True,
    granularity: Granularity | None = None,
    scale: Scale = suited,
    act_order: bool = False,
    static_groups: bool = False,
    damping: float = 0.01,
    block: int = 128,
    axes: AxesLike = None,
    keep_zeros: bool = True,
    where: Where = is_weight,
) -> Compressor:
    """Quantize weights with GPTQ, a post-training method that compensates rounding errors.

    Use it on a trained network, with statistics of a few calibration batches.
    ``update(params, state, stats=...)`` moves the weights onto the grid. Before that
    update, and in training after it, weights are rounded to nearest and scales are fixed.
    After a pruner in a chain, pruned weights stay zero and the others compensate. Below
    four input rows a feature, correlations are trusted less: ``X^T X`` is shrunk toward
    its diagonal. A layer that GPTQ would leave worse than rounding to nearest is rounded
    to nearest.

    Args:
      bits: bits per weight: 1 to 8, or 16.
      fmt: any format of ``jaxcompress.formats``, instead of ``bits``.
      symmetric: True centers the integers on zero; False adds a zero point.
      granularity: which weights share a scale, such as ``PerGroup(128)`` or
        ``PerTensor()``. None: one scale per output of each layer. Scales of a group are
        chosen when the pass reaches it.
      scale: function that chooses the scales. ``scales.mse()`` clips outliers, which pays
        below 4 bits.
      act_order: process features by decreasing activation. Group scales are then chosen
        up front.
      static_groups: choose group scales up front.
      damping: added to the diagonal of ``X^T X``, as a fraction of its mean.
      block: number of features per matrix product that updates the later features.
      axes: the contraction axes of each leaf: None for the default of a matrix,
        ``{glob: Axes(...)}`` or ``weight_axes(fn, params, x)``.
      keep_zeros: whether weights that are zero stay zero.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for unsupported bits; in ``init``, if ``where`` selects nothing, axes
        are ambiguous or groups do not divide a leaf; in ``update``, if a selected leaf
        has no statistics, or they have the wrong shape or are not finite.

    Warns:
      UserWarning: in ``finalize``, if no update was given statistics.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> kx, km, kw = jax.random.split(jax.random.key(0), 3)
      >>> params = {"kernel": jax.random.normal(kw, (32, 4))}
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> x = jax.random.normal(kx, (256, 32)) @ jax.random.normal(km, (32, 32))
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
      >>> small = jc.compress(gptq_quantization(4), params, stats=stats)
      >>> nearest = jc.compress(jc.weight_quantization(bits=4), params)
      >>> errors = [jnp.sum((fn(jc.dense(p), x) - fn(params, x)) ** 2)
      ...           for p in (small, nearest)]
      >>> bool(errors[0] < 0.5 * errors[1]), small["kernel"].bits
      (True, 4)

    References:
      Frantar et al., 2022, https://arxiv.org/abs/2210.17323
    """
    check_counts(block=block)
    check_flags(symmetric=symmetric, act_order=act_order, static_groups=static_groups)

    def solve(
        w: jax.Array, h: jax.Array, keep: jax.Array, grid: Grid, choose: Scale | None
    ) -> tuple[jax.Array, Grid]:
        static = static_groups or act_order or len(grid[0]) == 1
        if choose is None or static:
            choose, static = fixed(*grid), True
        new, scales, zero_point = gptq(
            w, h, grid_format, scale_shape=grid[0].shape, keep=keep, damping=damping,
            scale=choose, static_groups=static,
            act_order=act_order, block=block,
        )  # fmt: skip
        return new, (scales, zero_point)

    grid_format = Int(bits, symmetric) if fmt is None else fmt
    granularity = with_axes(granularity or PerChannel(), axes)
    compressor = layerwise_quantization(
        grid_format, granularity=granularity, solve=solve, scale=scale, axes=axes,
        keep_zeros=keep_zeros,
    )  # fmt: skip
    return masked(compressor, where)


@name_defaults
def adaround_quantization(
    bits: int = 4,
    *,
    symmetric: bool = True,
    granularity: Granularity | None = None,
    scale: Scale = absmax,
    steps: int = 1000,
    learning_rate: float = 1e-2,
    regularization: float = 10.0,
    warm_up: float = 0.2,
    axes: AxesLike = None,
    keep_zeros: bool = True,
    where: Where = is_weight,
) -> Compressor:
    """Quantize weights with AdaRound, a post-training method that learns the rounding.

    It is used like ``gptq_quantization`` and costs more: ``steps`` products of ``X^T X``
    with the weights. Scales are those of rounding to nearest. To learn the rounding from
    the loss during training, use ``weight_quantization(rounding=learned())`` instead.

    Args:
      bits: bits per weight: 2 to 8, or 16; also 1 if ``symmetric`` is False.
      symmetric: True centers the integers on zero; False adds a zero point.
      granularity: which weights share a scale. None: one scale per output.
      scale: function that chooses the scales.
      steps: number of Adam steps.
      learning_rate: learning rate of Adam.
      regularization: penalty on undecided weights; see ``adaround``.
      warm_up: fraction of the steps before the penalty sets in.
      axes: the contraction axes; see ``gptq_quantization``.
      keep_zeros: whether weights that are zero stay zero.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: see ``gptq_quantization``; also in ``update``, if an argument is out of
        range.

    Warns:
      UserWarning: in ``finalize``, if no update was given statistics.

    Example:
      >>> import jax, jaxcompress as jc
      >>> kx, kw = jax.random.split(jax.random.key(0))
      >>> params = {"kernel": jax.random.normal(kw, (16, 4))}
      >>> fn = lambda params, x: x @ params["kernel"]
      >>> x = jax.random.normal(kx, (128, 16))
      >>> stats = jc.observe(fn, params, [x], jc.program.statistics.gram())
      >>> small = jc.compress(adaround_quantization(4, steps=100), params, stats=stats)
      >>> small["kernel"].codes.dtype
      dtype('int8')

    References:
      Nagel et al., 2020, https://arxiv.org/abs/2004.10568
    """
    check_counts(steps=steps)

    def solve(
        w: jax.Array, h: jax.Array, keep: jax.Array, grid: Grid, choose: Scale | None
    ) -> tuple[jax.Array, Grid]:
        del choose
        new, scales, zero_point = adaround(
            w, h, fmt, scale_shape=grid[0].shape, scale=fixed(*grid), keep=keep,
            steps=steps, learning_rate=learning_rate, regularization=regularization,
            warm_up=warm_up,
        )  # fmt: skip
        return new, (scales, zero_point)

    fmt = Int(bits, symmetric)
    granularity = with_axes(granularity or PerChannel(), axes)
    compressor = layerwise_quantization(
        fmt, granularity=granularity, solve=solve, scale=scale, axes=axes,
        keep_zeros=keep_zeros,
    )  # fmt: skip
    return masked(compressor, where)
