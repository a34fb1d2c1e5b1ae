# SPDX-License-Identifier: Apache-2.0
"""The rate of a compressor's parameters, in bits."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_compressor
from .._compressor import Compressor
from .._types import PyTree
from ._multiplier import Multiplier


def measure(compressor: Compressor, params: PyTree, state: PyTree) -> jax.Array:
    """Return how many bits the codes of the compressed leaves take: float32 [].

    This is what the penalty of ``entropy_constrained`` and ``entropy_constrained_sharing``
    is made of, before the multiplier; differentiable. What the leaves take in the file
    differs by less than 2 % from some kilobytes on, and by a few bytes a leaf below. Names
    and manifest (about 250 bytes), and leaves that neither compresses, come on top.

    Args:
      compressor: one that contains either, perhaps in a chain.
      params: raw parameters.
      state: the compressor's state.

    Raises:
      TypeError: if the first argument is not a compressor, or the last not its state.
      ValueError: if it has no rate.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.eye(64)}
      >>> c = jc.rate.entropy_constrained(0.1)
      >>> bits = jc.rate.measure(c, params, c.init(params))
      >>> bool(64 < bits < 64 * 64)
      True
    """
    check_compressor(compressor, "measure(compressor, params, state)")
    if hasattr(state, "compression"):
        raise TypeError(
            "measure takes the compressor's state, got the state of a training run. Pass "
            "state.params and state.compression."
        )

    def count_bits(x: Any) -> Any:
        """Let the penalty be all bits, counted anew."""
        if not _is_mark(x):
            return x
        return Multiplier(jnp.full_like(x.value, x.per), x.per, x.origin, counts=True)

    whole = jax.tree.map(count_bits, state, is_leaf=_is_mark)
    terms = compressor.penalty(params, whole) if compressor.penalty else {}
    if "rate" not in terms:
        raise ValueError(
            "this compressor has no rate. Use rate.entropy_constrained or "
            "rate.entropy_constrained_sharing, alone or in a chain."
        )
    return terms["rate"]


def _is_mark(x: Any) -> bool:
    return isinstance(x, Multiplier)
