# SPDX-License-Identifier: Apache-2.0
"""What becomes of pruned weights: zeros for good, values on hold, or trained on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..numerics import ste

__all__ = [
    "Pruned",
    "frozen",
    "sr_ste",
    "zeroed",
]

OfOne = Callable[[jax.Array, jax.Array], jax.Array]


def keep(param: jax.Array, mask: jax.Array) -> jax.Array:
    """The parameter where the mask is True, zero elsewhere."""
    # `where` and not a product: a NaN under the mask must not come through.
    return jnp.where(mask, param, jnp.zeros((), param.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned:
    """What becomes of a weight while it is pruned. Its view is zero in any case.

    Attributes:
      view: ``(param, mask) -> view``, zero where the mask is False; its derivative says
        which gradient a pruned weight gets.
      settle: ``(param, mask) -> param``, what ``update`` makes of the raw parameter that
        the optimizer has moved, before new masks are drawn from it.
      trained: whether pruned weights are trained on, and keep their optimizer state.
    """

    view: OfOne
    settle: OfOne
    trained: bool = False


zeroed = Pruned(view=keep, settle=keep)
"""Zero for good: no gradient. Scored as zeros, so that magnitudes never bring one back."""

frozen = Pruned(view=keep, settle=lambda param, mask: param)
"""Keeps its value: no gradient, and there again once its score rises (movement). Weight
decay that is decoupled from the gradient (AdamW) still shrinks it."""


def sr_ste(decay: float = 0.0) -> Pruned:
    """Trained on with the gradient at the view, and there again once it is large enough.

    Args:
      decay: SR-STE: the share by which ``update`` shrinks pruned weights, which keeps
        masks from flickering. Decoupled from the gradient: with plain SGD, the paper's
        factor times the learning rate.

    References:
      Bengio et al., 2013, https://arxiv.org/abs/1308.3432; Zhou et al., 2021,
      https://arxiv.org/abs/2102.04010 (SR-STE, for N:M)

    Example:
      >>> import jaxcompress as jc
      >>> sr_ste = jc.prune.treatments.sr_ste(decay=2e-5)
      >>> pruner = jc.magnitude_pruning(
      ...     0.5, pattern=jc.prune.patterns.NOfM(2, 4), pruned=sr_ste
      ... )
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} is outside [0, 1).")

    def settle(param: jax.Array, mask: jax.Array) -> jax.Array:
        if not decay:
            return param
        return jnp.where(mask, param, param * jnp.asarray(1 - decay, param.dtype))

    def view(param: jax.Array, mask: jax.Array) -> jax.Array:
        # What is not finite differs from itself, and would show under the mask.
        finite = jnp.where(jnp.isfinite(param), param, jnp.zeros((), param.dtype))
        return ste(finite, keep(param, mask))

    return Pruned(
        view=view,
        settle=settle,
        trained=True,
    )
