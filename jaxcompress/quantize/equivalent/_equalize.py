# SPDX-License-Identifier: Apache-2.0
"""Equal ranges between layers, or between activations and weights, by rescaling links."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._compressor import Compressor
from ...layerwise import Evidence
from ._compressors import move_given, move_once
from ._links import Bound, ByPath, Link, by_channel, rescale, unless_dead

ABSMAX = Evidence(
    "absmax",
    "shape",
    "observe(fn, params, batches, program.statistics.max_magnitude())",
)
# Steps this small are the rounding of the ranges themselves.
_CONVERGED = 1e-6


def cross_layer_equalization(
    links: Sequence[Link], *, iterations: int = 100
) -> Compressor:
    """Give each channel the same range in what produces it and in what consumes it.

    Weights with one scale for a whole leaf lose most where the ranges of its channels
    differ. ``s = sqrt(r1 / r2)`` for each channel, where ``r1`` and ``r2`` are the largest
    magnitudes in the kernels that produce and consume it; sweeps over all links until
    nothing moves. The function stays the same. It needs no data.

    The first update moves the parameters; the view is always the parameters. A channel
    that is zero on one side is left alone, zeros stay zeros, and a second compressor of
    the same links moves nothing. Biases are rescaled with their kernels, but have no say
    in the ranges. Fold batch norms first (``fold_batch_norm``).
    A quantizer behind it in a chain whose scales are learned (``lsq()``) has started from
    the parameters as they were: compress with this first, and train what it gives.

    Args:
      links: which channels; the leaves of one link may be in others along other axes.
      iterations: sweeps at most.

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
    if iterations < 1:
        raise ValueError(f"iterations={iterations}: one sweep is the least.")

    def move(bound: list[Bound], leaves: ByPath) -> ByPath:
        return rescale(leaves, bound, _equalizing(bound, leaves, iterations))

    return move_once(links, move, what="nothing is equalized", check=_check_kernels)


def smooth_quant(links: Sequence[Link], alpha: float = 0.5) -> Compressor:
    """Move the range of activations into the weights that read them.

    A few channels of activations with a hundred times the range of others leave the others
    few codes. ``s = max|x|**alpha / max|w|**(1 - alpha)`` for each channel: the
    activation is divided by it, in what produces it, and the weights are multiplied. The
    function stays the same. To quantize activations and weights alike, with 8 bits.

    Every update that is given ``absmax=`` moves the parameters, so give it once; all
    others leave them as they are. With statistics of the moved parameters it moves
    nothing, unless a leaf is in two links. Other statistics that were observed before
    (for GPTQ) do not fit the moved parameters: compress with this first, and observe
    again. A channel that is zero on one side is left alone, and zeros stay zeros.

    Args:
      links: which channels; most often from a norm to the layers that read it. A channel
        that several read has the largest range of them.
      alpha: 0 equalizes the weights, 1 the activations.

    Raises:
      ValueError: if alpha is not in [0, 1]; in ``init``, if a link does not fit the
        parameters; in ``update``, if a consumer has no statistics.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> from jaxcompress.quantize.equivalent import Link, smooth_quant
      >>> params = {"scale": jnp.ones(2), "w": jnp.eye(2)}
      >>> def fn(params, x):
      ...     return (x * params["scale"][None]) @ params["w"]
      >>> seen = jc.observe(fn, params, [jnp.array([[1.0, -64.0]])], jc.program.statistics.max_magnitude())
      >>> smooth = smooth_quant([Link({"scale": 0}, {"w": 0})])
      >>> new = jc.compress(smooth, params, absmax=seen)
      >>> new["scale"].tolist(), new["w"].tolist()
      ([1.0, 0.125], [[1.0, 0.0], [0.0, 8.0]])

    References:
      Xiao et al., 2022, https://arxiv.org/abs/2211.10438
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha}: it lies between 0 and 1.")

    def move(
        bound: list[Bound], leaves: ByPath, seen: Mapping[str, jax.Array]
    ) -> ByPath:
        scales = []
        for link in bound:
            inputs = {
                p: _along_leaf(p, seen[p], leaves[p].shape) for p in link.consumers
            }
            x = _ranges(inputs, link.dims, link.consumers)
            w = _ranges(leaves, link.dims, link.consumers)
            # Where either is zero, no share of it is a scale.
            live = (x > 0) & (w > 0)
            s = jnp.where(live, x, 1) ** alpha / jnp.where(live, w, 1) ** (1 - alpha)
            scales.append(unless_dead(s))
        return rescale(leaves, bound, scales)

    return move_given(links, move, ABSMAX, what="nothing is smoothed")


def _equalizing(
    bound: list[Bound], leaves: ByPath, iterations: int
) -> tuple[jax.Array, ...]:
    """The scales of each link that make its ranges equal, after sweeps over all."""

    def sweep(carry: Any) -> Any:
        scales, _, i = carry
        largest = jnp.zeros(())
        for k, link in enumerate(bound):
            # Ranges of the weights as they are by now: Gauss and Seidel.
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
    """The kernels of one link, in float32 or more, under the scales of all links."""
    used = {**_kernels(link.producers, leaves), **_kernels(link.consumers, leaves)}
    wide = {
        p: leaves[p].astype(jnp.promote_types(leaves[p].dtype, jnp.float32))
        for p in used
    }
    return rescale(wide, bound, scales)


def _ranges(
    leaves: Mapping[str, jax.Array],
    dims: tuple[int, ...],
    among: Mapping[str, tuple[int, ...]],
) -> jax.Array:
    """The largest magnitude of each channel in some leaves: ``dims``, float32 or more."""
    largest = [
        jnp.max(jnp.abs(by_channel(leaves[p], dims, axes)), axis=-1, initial=0)
        for p, axes in among.items()
    ]
    together = functools.reduce(jnp.maximum, largest)
    return together.astype(jnp.promote_types(together.dtype, jnp.float32))


def _kernels(
    side: Mapping[str, tuple[int, ...]], leaves: ByPath
) -> dict[str, tuple[int, ...]]:
    """Those with axes beside the channels: no biases, and no scales of norms."""
    return {p: axes for p, axes in side.items() if leaves[p].ndim > len(axes)}


def _check_kernels(bound: list[Bound], leaves: ByPath) -> None:
    for link in bound:
        for side, axes in (("producer", link.producers), ("consumer", link.consumers)):
            if not _kernels(axes, leaves):
                raise ValueError(
                    f"{link.name}: no {side} has axes beside those of the channels, so "
                    "there is no kernel whose range could be made equal. For links from a "
                    "norm see smooth_quant and awq."
                )


def _along_leaf(path: str, absmax: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    try:
        return jnp.broadcast_to(absmax, shape)
    except ValueError as error:
        raise ValueError(
            f"{path!r} has shape {shape} and absmax= has {tuple(absmax.shape)} there, "
            "which is not laid out along its axes. Pass what observe gives for these "
            "parameters."
        ) from error
