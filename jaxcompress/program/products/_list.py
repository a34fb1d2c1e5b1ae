# SPDX-License-Identifier: Apache-2.0
"""Sites: the matrix products, convolutions and look-ups of a function, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..trace._analyze import analyze
from ._find import find
from ._site import Sites


def sites(
    fn: Callable[..., Any], params: Any, *args: Any, inline_custom: bool = False
) -> Sites:
    """List every matrix product, convolution and embedding look-up of a function.

    Print the result to see what can be compressed and under which names. The function is
    traced, not run. Names do not depend on the batch size, on training or evaluation
    mode, or on ``jit``.

    Args:
      fn: ``(params, *args) -> out`` of any framework. For Linen pass
        ``lambda variables, x: model.apply(variables, x)``; for NNX call ``nnx.merge``
        inside; for Equinox call ``eqx.combine`` inside.
      params: tree of arrays or ``jax.ShapeDtypeStruct``.
      *args: trees of arrays or ``jax.ShapeDtypeStruct``.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      The sites, and the opaque parts that were not entered.

    Warns:
      ClosedOverWarning: if the function multiplies by an array that it closes over.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"first": {"w": jnp.ones((8, 4))}, "last": {"w": jnp.ones((4, 2))}}
      >>> def fn(params, x):
      ...     return jnp.tanh(x @ params["first"]["w"]) @ params["last"]["w"]
      >>> for site in jc.sites(fn, params, jnp.ones((16, 8))):
      ...     print(site.name, site.macs)
      first/w 512
      last/w 128
    """
    index = find(analyze(fn, params, args, inline_custom=inline_custom))
    return Sites(tuple(index.sites.values()), tuple(index.opaque))
