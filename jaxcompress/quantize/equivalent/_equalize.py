# SPDX-License-Identifier: Apache-2.0
"""Rescale links to equalize ranges across layers, or of activations and weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._arguments import check_whole
from ..._compressor import Compressor
from ...layerwise import Evidence, check_summed_axes
from ._compressors import move_given, move_once
from ._links import Bound, ByPath, Link, by_channel, rescale, unless_dead

ABSMAX = Evidence(
    "absmax",
    "shape",
    "observe(fn, params, batches, program.statistics.max_magnitude())",
)
# Steps this small come from the rounding of the ranges.
_CONVERGED = 1e-6


def cross_layer_equalization(
    links: Sequence[Link], *, iterations: int = 100
) -> Compressor:
    """Equalize each channel's range across two layers, for per-tensor quantization.

    Skip it if scales are per channel or group: there it gained nothing in a pretrained
    sentence encoder, and lost a little at 3 and 4 bits (``benchmarks/README.md``). It sees
    no data, so it cannot check this: compare the outputs with and without.

    It needs no data, and the function stays the same. A single scale for a whole leaf
    loses most if the ranges of its channels differ. Each channel is rescaled by
    ``s = sqrt(r1 / r2)``, where ``r1`` and ``r2`` are the largest magnitudes in the kernels
    that produce and consume it. The sweeps over all links repeat until nothing moves.

    The first update moves the parameters; the view is always the parameters. A channel
    that is zero on one side is left alone, zeros stay zeros, and a second compressor of
    the same links moves nothing. Biases are rescaled with their kernels but do not count
    for the ranges. Fold batch norms first (``fold_batch_norm``). A quantizer with learned
    scales (``lsq()``) behind it in a chain has already started from the old parameters:
    compress with this function first, then train the result.

    Args:
      links: which channels to rescale; a leaf may be in several links, along different
        axes.
      iterations: maximum number of sweeps.

    Raises:
      ValueError: if ``iterations`` is not positive; and in ``init``, if a link does not
        fit the parameters or has no kernel on one of its sides.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link, cross_layer_equalization
      >>> params = {"a": jnp.array([[8.0, 1.0]]), "b": jnp.array([[2.0], [4.0]])}
      >>> equal = cross_layer_equalization([Link({"a": 1}, {"b": 0})])
      >>> new = jc.compress(equal, params)
      >>> new["a"].tolist(), new["b"].tolist()
      ([[4.0, 2.0]], [[4.0], [2.0]])

    References:
      Nagel et al., 2019, https://arxiv.org/abs/1906.04721; Meller et al., 2019,
      https://arxiv.org/abs/1902.01917
    """
    check_whole(iterations=iterations)
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1 sweep, got {iterations}.")

    def move(bound: list[Bound], leaves: ByPath) -> ByPath:
        return rescale(leaves, bound, _equalizing_scales(bound, leaves, iterations))

    return move_once(links, move, what="nothing is equalized", check=_check_kernels)


def smooth_quant(links: Sequence[Link], alpha: float = 0.5) -> Compressor:
    """Move activation outliers into the weights that read them (SmoothQuant).

    Use it before quantizing both activations and weights to 8 bits. If a few channels of
    an activation have a hundred times the range of the others, the others get few codes.
    Each channel gets ``s = max|x|**alpha / max|w|**(1 - alpha)``: the producer of the
    activation is divided by it and the weights are multiplied by it. The function stays
    the same.

    Every update with ``absmax=`` moves the parameters, so pass it once; all other updates
    leave them unchanged. Statistics of the moved parameters move nothing further, unless a
    leaf is in two links. Other statistics observed before (for GPTQ) do not fit the moved
    parameters: compress with this function first and observe again. A channel that is
    zero on one side is left alone, and zeros stay zeros.

    Args:
      links: which channels to rescale, most often from a norm to the layers that read it.
        If several layers read a channel, the largest of their weight ranges counts.
      alpha: in [0, 1]; 0 equalizes the weights, 1 the activations.

    Raises:
      ValueError: if alpha is not in [0, 1]; in ``init``, if a link does not fit the
        parameters; in ``update``, if a consumer has no statistics.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link, smooth_quant
      >>> params = {"scale": jnp.ones(2), "w": jnp.eye(2)}
      >>> def fn(params, x):
      ...     return (x * params["scale"][None]) @ params["w"]
      >>> batches = [jnp.array([[1.0, -64.0]])]
      >>> magnitudes = jc.program.statistics.max_magnitude()
      >>> absmax = jc.observe(fn, params, batches, magnitudes)
      >>> smooth = smooth_quant([Link({"scale": 0}, {"w": 0})])
      >>> new = jc.compress(smooth, params, absmax=absmax)
      >>> new["scale"].tolist(), new["w"].tolist()
      ([1.0, 0.125], [[1.0, 0.0], [0.0, 8.0]])

    References:
      Xiao et al., 2022, https://arxiv.org/abs/2211.10438
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}.")

    def move(
        bound: list[Bound], leaves: ByPath, absmax: Mapping[str, jax.Array]
    ) -> ByPath:
        scales = []
        for link in bound:
            for p, channels in link.consumers.items():
                check_summed_axes(p, leaves[p].shape, absmax[p], channels)
            inputs = {
                p: _broadcast(p, absmax[p], leaves[p].shape) for p in link.consumers
            }
            x = _ranges(inputs, link.dims, link.consumers)
            w = _ranges(leaves, link.dims, link.consumers)
            # A channel that is zero on either side has no meaningful scale.
            is_live = (x > 0) & (w > 0)
            s = jnp.where(is_live, x, 1) ** alpha
            s = s / jnp.where(is_live, w, 1) ** (1 - alpha)
            scales.append(unless_dead(s))
        return rescale(leaves, bound, scales)

    return move_given(links, move, ABSMAX, what="nothing is smoothed")


def _equalizing_scales(
    bound: list[Bound], leaves: ByPath, iterations: int
) -> tuple[jax.Array, ...]:
    """Sweep over all links; return the scales of each that equalize its ranges."""

    def sweep(carry: Any) -> Any:
        scales, _, i = carry
        largest = jnp.zeros(())
        for k, link in enumerate(bound):
            # Use the weights as already rescaled in this sweep (Gauss-Seidel).
            new = _rescaled_kernels(leaves, bound, scales, link)
            r1 = _ranges(new, link.dims, _kernels(link.producers, leaves))
            r2 = _ranges(new, link.dims, _kernels(link.consumers, leaves))
            step = unless_dead(jnp.sqrt(r1 / r2))
            scales = (*scales[:k], scales[k] * step, *scales[k + 1 :])
            largest = jnp.maximum(largest, jnp.max(jnp.abs(jnp.log(step))))
        return scales, largest.astype(jnp.float32), i + 1

    def moving(carry: Any) -> jax.Array:
        return (carry[1] > _CONVERGED) & (carry[2] < iterations)

    wide = functools.reduce(
        jnp.promote_types, [x.dtype for x in leaves.values()], jnp.dtype(jnp.float32)
    )
    ones = tuple(jnp.ones(link.dims, wide) for link in bound)
    start = ones, jnp.float32(jnp.inf), jnp.zeros((), jnp.int32)
    return lax.while_loop(moving, sweep, start)[0]


def _rescaled_kernels(
    leaves: ByPath, bound: list[Bound], scales: Sequence[jax.Array], link: Bound
) -> ByPath:
    """Rescale the kernels of one link by the scales of all links; float32 or wider."""
    used = {**_kernels(link.producers, leaves), **_kernels(link.consumers, leaves)}
    wide = {
        p: leaves[p].astype(jnp.promote_types(leaves[p].dtype, jnp.float32))
        for p in used
    }
    return rescale(wide, bound, scales)


def _ranges(
    leaves: Mapping[str, jax.Array],
    dims: tuple[int, ...],
    channel_axes: Mapping[str, tuple[int, ...]],
) -> jax.Array:
    """Return each channel's largest magnitude in the leaves: ``dims``, float32 or wider."""
    largest = [
        jnp.max(jnp.abs(by_channel(leaves[p], dims, axes)), axis=-1, initial=0)
        for p, axes in channel_axes.items()
    ]
    together = functools.reduce(jnp.maximum, largest)
    return together.astype(jnp.promote_types(together.dtype, jnp.float32))


def _kernels(
    side: Mapping[str, tuple[int, ...]], leaves: ByPath
) -> dict[str, tuple[int, ...]]:
    """Keep leaves with axes besides the channels: no biases, no scales of norms."""
    return {p: axes for p, axes in side.items() if leaves[p].ndim > len(axes)}


def _check_kernels(bound: list[Bound], leaves: ByPath) -> None:
    for link in bound:
        for side, axes in (("producer", link.producers), ("consumer", link.consumers)):
            if not _kernels(axes, leaves):
                raise ValueError(
                    f"{link.name}: at least one {side} must be a kernel, with axes "
                    "besides the channels. For links from a norm use smooth_quant or awq."
                )


def _broadcast(path: str, absmax: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    try:
        return jnp.broadcast_to(absmax, shape)
    except ValueError as error:
        raise ValueError(
            f"absmax= must broadcast to {path!r} of shape {shape}, got shape "
            f"{tuple(absmax.shape)}. Pass the result of observe for these parameters."
        ) from error
