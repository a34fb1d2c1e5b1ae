# SPDX-License-Identifier: Apache-2.0
"""Top-KAST: a sparse forward pass, and gradients for a few weights more."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..._combine import masked
from ..._compressor import Active, Compressor, PyTree
from ..._select import Where, is_weight
from ...numerics import ste
from .._prune import draw_masks
from ..budgets._sparsity import Budget, uniform
from ..patterns._protocol import unstructured
from ..scores._immediate import magnitude, refuse_nan
from ..treatments import keep


class TopKastState(NamedTuple):
    """State of top-KAST."""

    count: jax.Array  # int32 []: updates so far
    forward: PyTree  # bool, like params: what the model sees
    kept: Active  # bool, like params: what gets a gradient; these, and some more

    @property
    def masks(self) -> PyTree:
        """Bool arrays like the parameters, True where the view is not zero."""
        return self.forward


def top_kast(
    sparsity: float,
    backward_sparsity: float,
    *,
    decay: float = 0.0,
    every: int = 1,
    budget: Budget = uniform,
    where: Where = is_weight,
) -> Compressor:
    """Compute with the largest weights, and train some more than these.

    The forward pass is as sparse as ``sparsity`` says all the time. Gradients go to the
    weights that a lower sparsity would keep, so that some just below the threshold can
    overtake others; the rest stand still. No dense gradient is needed, in principle: here
    it is computed and not used.

    Args:
      sparsity: fraction of the selected weights that the model does not see, in [0, 1).
      backward_sparsity: fraction that gets no gradient; less than ``sparsity``.
      decay: the share by which ``update`` shrinks weights; those that are trained and
        not seen, by that over the density of the forward pass, as the paper does.
      every: updates between two redrawings of the masks.
      budget: how the sparsity is spread over leaves.
      where: which leaves.

    Raises:
      ValueError: for numbers out of their range; in ``init``, if nothing is selected.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jnp.array([[4.0, 3.0, 2.0, 1.0]])}
      >>> sparse = jc.prune.top_kast(0.75, 0.5)
      >>> state = sparse.init(params)
      >>> view, pullback = jax.vjp(lambda p: sparse.apply(p, state), params)
      >>> view["kernel"].tolist(), pullback(view)[0]["kernel"].tolist()
      ([[4.0, 0.0, 0.0, 0.0]], [[4.0, 0.0, 0.0, 0.0]])
      >>> pullback({"kernel": jnp.ones((1, 4))})[0]["kernel"].tolist()
      [[1.0, 1.0, 0.0, 0.0]]

    References:
      Jayakumar et al., 2020, https://arxiv.org/abs/2106.03517
    """
    if not 0 <= backward_sparsity < sparsity < 1:
        raise ValueError(
            f"sparsity={sparsity}, backward_sparsity={backward_sparsity}: "
            "0 <= backward_sparsity < sparsity < 1, more weights trained than seen."
        )
    if every < 1 or not 0 <= decay < 1:
        raise ValueError(f"every={every} is below 1, or decay={decay} not in [0, 1).")
    more = decay / (1 - sparsity)

    def draw(params: PyTree) -> tuple[PyTree, PyTree]:
        scores = magnitude(params)
        return (
            draw_masks(scores, sparsity, budget, unstructured),
            draw_masks(scores, backward_sparsity, budget, unstructured),
        )

    def init(params: PyTree) -> TopKastState:
        refuse_nan(params)
        forward, backward = draw(params)
        return TopKastState(jnp.zeros((), jnp.int32), forward, Active(backward))

    def apply(params: PyTree, state: TopKastState) -> PyTree:
        return jax.tree.map(
            lambda p, f, b: ste(p, keep(p, f), b),
            params,
            state.forward,
            state.kept.masks,
        )

    def shrink(p: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
        share = jnp.where(forward, decay, jnp.where(backward, more, 0.0))
        return p * (1 - share).astype(p.dtype)

    def update(
        params: PyTree, state: TopKastState, **extras: Any
    ) -> tuple[PyTree, TopKastState]:
        del extras
        count, backward = state.count + 1, state.kept.masks
        if decay:
            params = jax.tree.map(shrink, params, state.forward, backward)
        refuse_nan(params)
        forward, backward = lax.cond(
            count % every == 0, lambda: draw(params), lambda: (state.forward, backward)
        )
        return params, TopKastState(count, forward, Active(backward))

    return masked(Compressor(init=init, apply=apply, update=update), where)
