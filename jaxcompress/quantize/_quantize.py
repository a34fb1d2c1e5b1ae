# SPDX-License-Identifier: Apache-2.0
"""Weight quantization as a compressor: simulated in training, codes when it ships."""

from __future__ import annotations

import jax

from .._combine import masked
from .._compressor import Compressor, PyTree
from .._select import Where, is_weight, map_with_path
from ._fake import fake_quant, to_qarray
from ._formats import Int
from ._granularity import Granularity, PerChannel
from ._scales import Scale, absmax


def quantize(
    fmt: Int, *, granularity: Granularity, scale: Scale = absmax
) -> Compressor:
    """Round every leaf of the tree to the grid of a format.

    It has no state: scales follow the weights at every step. ``finalize`` makes
    ``QArray`` leaves.

    Args:
      fmt: which codes there are.
      granularity: which weights share a scale.
      scale: how far apart the codes lie.
    """

    def fake(path: str, x: jax.Array) -> jax.Array:
        shape = granularity.scale_shape(path, x.shape)
        return fake_quant(x, fmt, scale_shape=shape, scale=scale)

    def codes(path: str, x: jax.Array) -> object:
        shape = granularity.scale_shape(path, x.shape)
        return to_qarray(x, fmt, scale_shape=shape, scale=scale)

    def init(params: PyTree) -> tuple[()]:
        # Ambiguous axes and groups that do not divide are refused here, not in step 1.
        map_with_path(lambda path, x: granularity.scale_shape(path, x.shape), params)
        return ()

    return Compressor(
        init=init,
        apply=lambda params, state: map_with_path(fake, params),
        finalize=lambda params, state: map_with_path(codes, params),
    )


def weight_quantization(
    *,
    bits: int,
    symmetric: bool = True,
    granularity: Granularity | None = None,
    scale: Scale = absmax,
    where: Where = is_weight,
) -> Compressor:
    """Quantize weights to integers; biases and norm scales are left alone.

    In training the view is rounded to the grid and gradients pass straight through
    (simulated, no speed-up expected); ``finalize`` gives ``QArray`` leaves with
    ``dense(finalize(p, s)) == apply(p, s)``. After training, ``compress`` does it in one
    call. Zero is always on the grid, so pruned weights stay zero.

    Args:
      bits: 1 to 8, or 16. Two symmetric bits are ternary, one is the sign.
      symmetric: whether the grid is centered on zero; otherwise it has a zero point.
      granularity: ``PerTensor()``, ``PerChannel()`` (default) or ``PerGroup(n)``. For
        convolutions, whose axes their rank does not tell, ``PerChannel(axis=-1)``.
      scale: how to choose the scales; ``absmax`` clips nothing.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for unsupported bits; and in ``init``, if ``where`` selects nothing, the
        axes of a leaf are ambiguous, or groups do not divide it.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 8))}
      >>> int4 = jc.compress(jc.weight_quantization(bits=4), params)["kernel"]
      >>> int4.codes.dtype, int4.scale.shape
      (dtype('int8'), (1, 8))
      >>> error = jnp.abs(int4.dense() - params["kernel"])
      >>> bool(jnp.all(error <= int4.scale * 0.5001))
      True

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877; Courbariaux et al., 2015,
      https://arxiv.org/abs/1511.00363
    """
    fmt = Int(bits, symmetric)
    chosen = PerChannel() if granularity is None else granularity
    return masked(quantize(fmt, granularity=chosen, scale=scale), where)
