# SPDX-License-Identifier: Apache-2.0
"""Treatments of pruned weights: set to zero, freeze, or keep training."""

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

ParamMaskFn = Callable[[jax.Array, jax.Array], jax.Array]


def keep(param: jax.Array, mask: jax.Array) -> jax.Array:
    """Return the parameter where the mask is True, zero elsewhere."""
    # `where`, not a product: a NaN under the mask must not come through.
    return jnp.where(mask, param, jnp.zeros((), param.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pruned:
    """How weights are treated while they are pruned; pass it as ``pruned=``.

    The view of a pruned weight is always zero.

    Attributes:
      view: ``(param, mask) -> view``, zero where the mask is False. Its derivative sets the
        gradient that a pruned weight receives.
      settle: ``(param, mask) -> param``, applied by ``update`` to the raw parameter after
        the optimizer's step, before new masks are drawn.
      trained: whether pruned weights keep training, and keep their optimizer state.
      name: how the treatment is printed; None prints its functions.
    """

    view: ParamMaskFn
    settle: ParamMaskFn
    trained: bool = False
    name: str | None = None

    def __repr__(self) -> str:
        return self.name or f"Pruned(view={self.view!r}, settle={self.settle!r})"


zeroed = Pruned(view=keep, settle=keep, name="zeroed")
"""Set pruned weights to zero, with no gradient. They score as zero, so under ``magnitude``
none of them returns. The default."""

frozen = Pruned(view=keep, settle=lambda param, mask: param, name="frozen")
"""Keep the last value of pruned weights, with no gradient. A weight returns with that value
when its score rises, as in movement pruning. Decoupled weight decay (AdamW) still shrinks
it."""


def sr_ste(decay: float = 0.0) -> Pruned:
    """Keep training pruned weights, so that a weight returns once it is large enough.

    They receive the gradient at the view (straight-through estimator). Use it for N:M
    sparsity from scratch.

    Args:
      decay: the factor of SR-STE: ``update`` shrinks pruned weights by this fraction, which
        keeps masks from flickering. It is decoupled from the gradient: with plain SGD it
        equals the paper's factor times the learning rate.

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
        raise ValueError(f"decay must be in [0, 1), got decay={decay}.")

    def settle(param: jax.Array, mask: jax.Array) -> jax.Array:
        if not decay:
            return param
        return jnp.where(mask, param, param * jnp.asarray(1 - decay, param.dtype))

    def view(param: jax.Array, mask: jax.Array) -> jax.Array:
        # inf - inf is NaN, so a non-finite value would show under the mask.
        finite = jnp.where(jnp.isfinite(param), param, jnp.zeros((), param.dtype))
        return ste(finite, keep(param, mask))

    return Pruned(view=view, settle=settle, trained=True, name=f"sr_ste(decay={decay})")
