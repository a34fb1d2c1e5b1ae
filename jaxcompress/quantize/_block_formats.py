# SPDX-License-Identifier: Apache-2.0
"""Block formats for weights: MX and NVFP4."""

from __future__ import annotations

from .._axes import AxesLike
from .._compressor import Compressor
from .._select import Where, is_weight
from .._signatures import name_defaults
from ..formats import E2M1, Format
from ._granularity import PerGroup
from ._quantize import weight_quantization
from .gradients import pass_through
from .scales._block import power_of_two, two_level


@name_defaults
def mx_quantization(
    fmt: Format = E2M1, *, axes: AxesLike = None, where: Where = is_weight
) -> Compressor:
    """Quantize weights to a Microscaling (MX) format: blocks of 32 share an exponent.

    Use ``E2M1`` for MXFP4 (4.25 bits per weight), ``E2M3`` or ``E3M2`` for MXFP6, ``E4M3``
    or ``E5M2`` for MXFP8, and ``Int(8)`` for MXINT8. Gradients pass straight through.

    Args:
      fmt: format of the elements.
      axes: which axes products sum over; see ``PerGroup``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.linspace(-3, 3, 128).reshape(64, 2)}
      >>> mxfp4 = jc.compress(jc.quantize.mx_quantization(), params)["kernel"]
      >>> mxfp4.scale.dtype, mxfp4.scale.shape
      (dtype(float8_e8m0fnu), (2, 2))

    References:
      Rouhani et al., 2023, https://arxiv.org/abs/2310.10537
    """
    return weight_quantization(
        fmt=fmt,
        granularity=PerGroup(32, axes),
        scale=power_of_two,
        gradient=pass_through,
        where=where,
    )


@name_defaults
def nvfp4_quantization(
    *, axes: AxesLike = None, where: Where = is_weight
) -> Compressor:
    """Quantize weights to NVFP4: blocks of 16 share an E4M3 scale (4.5 bits per weight).

    Args:
      axes: which axes products sum over; see ``PerGroup``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.linspace(-3, 3, 128).reshape(64, 2)}
      >>> jc.compress(jc.quantize.nvfp4_quantization(), params)["kernel"].scale.shape
      (4, 2)

    References:
      NVIDIA, 2025, https://arxiv.org/abs/2509.25149
    """
    return weight_quantization(
        fmt=E2M1,
        granularity=PerGroup(16, axes),
        scale=two_level,
        gradient=pass_through,
        where=where,
    )
