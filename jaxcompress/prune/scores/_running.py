# SPDX-License-Identifier: Apache-2.0
"""Scores with state: sums or averages over the updates."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._immediate import (
    PyTree,
    Score,
    check_extras,
    check_score,
    refuse_nan,
    required_extras,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """A score that accumulates over many updates.

    Attributes:
      init: ``params -> memory``, any pytree of arrays, kept in the pruner's state.
      add: ``(params, memory, **extras) -> memory``, called at every update.
      read: ``(params, memory, **extras) -> scores``, called when masks are redrawn.
      immediate: True if ``read`` needs the parameters alone, so that ``init`` can already
        draw masks.
      name: what the memory holds, so that no other score reads it from a checkpoint.
    """

    init: Callable[[PyTree], PyTree]
    add: Callable[..., PyTree]
    read: Callable[..., PyTree]
    immediate: bool = False
    name: str = "scores"


def as_running(score: Score | Running) -> Running:
    """Give a score that keeps no memory the interface of one that does.

    Raises:
      TypeError: if a factory of scores was passed without calling it.
    """
    if isinstance(score, Running):
        return score
    check_score(score)
    required = required_extras(score)

    def add(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        del params
        check_extras(score, extras)
        for name in required:
            refuse_nan(extras[name])
        return memory

    def read(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        del memory
        return score(params, **extras)

    return Running(init=lambda params: (), add=add, read=read, immediate=not required)


def averaged(score: Score, decay: float = 0.99) -> Running:
    """Take the moving average of any score, to reduce the noise of single batches.

    Args:
      score: the score to average, such as ``saliency``.
      decay: weight of the old average in the new one, in [0, 1).

    Example:
      >>> import jaxcompress as jc
      >>> score = jc.prune.scores.averaged(jc.prune.scores.saliency)
      >>> pruner = jc.prune.prune(0.9, score=score)
    """
    check_score(score)
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1), got decay={decay}.")
    score_name = getattr(score, "__name__", "score")

    def add(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        check_extras(score, extras)
        new = score(params, **extras)
        # No bias correction: it would scale all scores alike.
        return jax.tree.map(lambda m, s: decay * m + (1 - decay) * s, memory, new)

    return Running(
        init=_make_zeros,
        add=add,
        read=lambda params, memory, **extras: memory,
        name=f"averaged_{score_name if score_name.isidentifier() else 'score'}",
    )


def fisher(decay: float = 0.99) -> Running:
    """Score weights by optimal brain damage: ``w^2 F / 2``, F a running diagonal Fisher.

    F is the moving average of squared gradients of *batches*. It is smaller than the
    average over single examples, by about the batch size, for all weights alike. For the
    exact diagonal, pass ``fisher_diagonal(loss_fn, params, batch)`` to the score ``obd``.

    Args:
      decay: weight of the old average in the new one.

    References:
      LeCun et al., 1990, "Optimal brain damage"; Theis et al., 2018,
      https://arxiv.org/abs/1801.05787
    """

    def squared(params: PyTree, *, grads: PyTree, **extras: Any) -> PyTree:
        del params, extras
        return jax.tree.map(lambda g: jnp.square(g.astype(jnp.float32)), grads)

    squared.__name__ = "fisher"  # the name that error messages show
    squares = averaged(squared, decay)
    return dataclasses.replace(
        squares, read=lambda params, memory, **extras: obd(params, fisher=memory)
    )


def obd(params: PyTree, *, fisher: PyTree, **extras: Any) -> PyTree:
    """Score weights by ``w^2 F / 2``, for a diagonal Hessian or Fisher F that you pass in.

    Pass F as ``fisher=``, for example the result of ``fisher_diagonal``.

    References:
      LeCun et al., 1990, "Optimal brain damage"
    """
    del extras
    return jax.tree.map(
        lambda w, f: jnp.square(w.astype(jnp.float32)) * f / 2, params, fisher
    )


def movement(regularization: float = 0.0) -> Running:
    """Score weights by the sum of ``-w g``: weights that move away from zero score high.

    These are the scores that a straight-through estimator would learn by SGD at rate 1.
    Pruned weights must keep their values to be able to return: combine it with
    ``pruned=prune.treatments.frozen``, or use ``prune.movement_pruning``, which does.

    With ``before=``, which ``train_step`` and ``wrap_optimizer`` pass, ``w`` is the weight
    at which the gradient was taken; otherwise it is the weight after the step.

    Args:
      regularization: strength of the penalty of soft movement pruning, on the sum of
        ``sigmoid(score)``. It pushes scores down to the threshold of the budget
        ``below(threshold)``.

    References:
      Sanh et al., 2020, https://arxiv.org/abs/2005.07683
    """
    # It may be a tracer, in a sweep.
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

        def add_movement(m: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
            push = w.astype(jnp.float32) * g.astype(jnp.float32)
            if penalized:
                gate = jax.nn.sigmoid(m)
                push = push + regularization * gate * (1 - gate)
            return m - push

        return jax.tree.map(add_movement, memory, params, grads)

    def add_checked(params: PyTree, memory: PyTree, **extras: Any) -> PyTree:
        check_extras(add, extras, "movement")
        return add(params, memory, **extras)

    return Running(
        init=_make_zeros,
        add=add_checked,
        read=lambda params, memory, **extras: memory,
        name="movement",
    )


def _make_zeros(params: PyTree) -> PyTree:
    # Computed from the leaf, to have its sharding.
    return jax.tree.map(lambda p: jnp.isnan(p).astype(jnp.float32) * 0, params)
