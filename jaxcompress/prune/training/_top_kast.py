# SPDX-License-Identifier: Apache-2.0
"""Top-KAST: a sparse forward pass, with gradients for slightly more weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._arguments import check_whole
from ..._combine import masked
from ..._compressor import Active, Compressor, PyTree
from ..._select import Where, is_weight
from ..._signatures import name_defaults
from ...numerics import cond, ste
from .._prune import draw_masks
from ..budgets._sparsity import Budget, uniform
from ..patterns._protocol import unstructured
from ..scores._immediate import magnitude, refuse_nan
from ..treatments import keep


class TopKastState(NamedTuple):
    """State of ``top_kast``."""

    count: jax.Array  # int32 []: updates so far
    forward: PyTree  # bool, like params: the weights in the view
    kept: Active  # bool, like params: the weights with a gradient, a superset

    @property
    def masks(self) -> PyTree:
        """Bool arrays shaped like the parameters, True where the view is not zero."""
        return self.forward


@name_defaults
def top_kast(
    sparsity: float,
    backward_sparsity: float,
    *,
    decay: float = 0.0,
    every: int = 1,
    budget: Budget = uniform,
    where: Where = is_weight,
) -> Compressor:
    """Train with the largest weights only, and gradients for a few more (Top-KAST).

    The forward pass is at ``sparsity`` throughout training. Gradients go to the weights
    that the lower ``backward_sparsity`` would keep, so weights just below the threshold
    can overtake others; the rest do not move. In principle this needs no dense
    gradient; this implementation computes it and discards it.

    Args:
      sparsity: fraction of the selected weights that are zero in the view, in [0, 1).
      backward_sparsity: fraction that gets no gradient; less than ``sparsity``.
      decay: the fraction by which ``update`` shrinks the weights in the view. Weights
        that are trained but not in the view shrink by this divided by the forward
        density, as in the paper.
      every: number of updates between redraws of the masks.
      budget: how the sparsity is divided among the leaves.
      where: which leaves.

    Raises:
      ValueError: if a number is out of range; in ``init``, if nothing is selected.

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
            "0 <= backward_sparsity < sparsity < 1 must hold, so that more weights are "
            f"trained than used, got sparsity={sparsity}, "
            f"backward_sparsity={backward_sparsity}."
        )
    check_whole(every=every)
    if every < 1 or not 0 <= decay < 1:
        raise ValueError(
            "every must be at least 1 and decay in [0, 1), got "
            f"every={every}, decay={decay}."
        )
    backward_decay = decay / (1 - sparsity)

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
        rate = jnp.where(forward, decay, jnp.where(backward, backward_decay, 0.0))
        return p * (1 - rate).astype(p.dtype)

    def update(
        params: PyTree, state: TopKastState, **extras: Any
    ) -> tuple[PyTree, TopKastState]:
        del extras
        count, backward = state.count + 1, state.kept.masks
        if decay:
            params = jax.tree.map(shrink, params, state.forward, backward)
        refuse_nan(params)
        forward, backward = cond(
            count % every == 0, lambda: draw(params), lambda: (state.forward, backward)
        )
        return params, TopKastState(count, forward, Active(backward))

    return masked(Compressor(init=init, apply=apply, update=update), where)
