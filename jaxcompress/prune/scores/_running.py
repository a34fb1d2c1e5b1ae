# SPDX-License-Identifier: Apache-2.0
"""Scores with a memory: what adds up, or is averaged, over the updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._immediate import PyTree, Score, check_score, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """A score that is gathered over many updates.

    Attributes:
      init: ``params -> memory``, any pytree of arrays; it lives in the pruner's state.
      add: ``(params, memory, **extras) -> memory``, at every update.
      read: ``(params, memory) -> scores``, when masks are drawn.
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[..., PyTree]
    read: Callable[[PyTree, PyTree], PyTree]


def averaged(score: Score, decay: float = 0.99) -> Running:
    """The moving average of any score: less noise than one batch has.

    Args:
      score: what to average, such as ``saliency``.
      decay: share of the old average in the new one, in [0, 1).

    Example:
      >>> import jaxcompress as jc
      >>> pruner = jc.prune.prune(0.9, score=jc.prune.scores.averaged(jc.prune.scores.saliency))
    """
    check_score(score)
    if not 0 <= decay < 1:
        raise ValueError(f"decay={decay} is outside [0, 1).")

    def add(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        require(score, extras)
        new = score(params, **extras)
        # Not corrected for the start from zero, which scales all scores alike.
        return jax.tree.map(lambda m, s: decay * m + (1 - decay) * s, memory, new)

    return Running(init=_zeros, add=add, read=lambda params, memory: memory)


def fisher(decay: float = 0.99) -> Running:
    """``w^2 F / 2`` with the diagonal of the empirical Fisher: optimal brain damage.

    F is the moving average of squared gradients of *batches*: smaller than that of
    single examples by about the batch's size, for all weights alike. For the exact one,
    pass ``fisher_diagonal(loss_fn, params, batch)`` to the score ``obd``.

    Args:
      decay: share of the old average in the new one.

    References:
      LeCun et al., 1990, "Optimal brain damage"; Theis et al., 2018,
      https://arxiv.org/abs/1801.05787
    """

    def squared(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
        del params, extras
        return jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), grads)

    squared.__name__ = "fisher"  # what a message about it should say
    squares = averaged(squared, decay)
    return dataclasses.replace(
        squares, read=lambda params, memory: obd(params, fisher=memory)
    )


def obd(params: PyTree, *, fisher: PyTree, **extras: Any) -> PyTree:
    """``w^2 F / 2``, for the diagonal F of a Hessian or Fisher that is passed in.

    References:
      LeCun et al., 1990, "Optimal brain damage"
    """
    del extras
    return jax.tree.map(
        lambda w, f: jnp.square(w.astype(jnp.float32)) * f / 2, params, fisher
    )


def movement(regularization: float = 0.0) -> Running:
    """Sum of ``-w g`` over the updates: weights that move away from zero matter.

    What stochastic gradient descent at rate 1 would make of scores that a straight-through
    estimator trains. Pruned weights have to keep their values, so that they can come
    back: ``pruned=prune.treatments.frozen``. ``prune.movement_pruning`` puts the two together.

    The weights are those that the gradient was taken at where they are passed
    (``before=``, as ``train_step`` and ``wrap_optimizer`` do), else those after the step.

    Args:
      regularization: of soft movement pruning: strength of the penalty on the sum of
        ``sigmoid(score)``, which pushes scores down to the threshold of the budget
        ``below(threshold)``.

    References:
      Sanh et al., 2020, https://arxiv.org/abs/2005.07683
    """
    # It may be traced, for a sweep.
    penalized = not isinstance(regularization, int | float) or regularization > 0

    def add(
        params: PyTree,
        memory: PyTree,
        *,
        grads: PyTree,
        before: PyTree = None,
        **extras: Any,
    ) -> PyTree:
        del extras
        params = params if before is None else before

        def moved(m: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
            push = w.astype(jnp.float32) * g.astype(jnp.float32)
            if penalized:
                gate = jax.nn.sigmoid(m)
                push = push + regularization * gate * (1 - gate)
            return m - push

        return jax.tree.map(moved, memory, params, grads)

    def checked(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        require(add, extras, "movement")
        return add(params, memory, **extras)

    return Running(init=_zeros, add=checked, read=lambda params, memory: memory)


def _zeros(params: PyTree) -> PyTree:
    # Made of the leaf, so that they have its sharding.
    return jax.tree.map(lambda p: jnp.isnan(p).astype(jnp.float32) * 0, params)
