# SPDX-License-Identifier: Apache-2.0
"""When masks are redrawn, and at which sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from .scores._immediate import PyTree

__all__ = [
    "Trigger",
    "alternating",
    "converged",
    "cubic",
    "geometric",
    "one_shot",
    "periodic",
]


def cubic(sparsity: float, *, begin: int = 0, end: int) -> optax.Schedule:
    """Rises from 0 at ``begin`` to ``sparsity`` at ``end``, fast while much is redundant.

    References:
      Zhu and Gupta, 2017, https://arxiv.org/abs/1710.01878

    Example:
      >>> import jaxcompress as jc
      >>> ramp = jc.prune.schedules.cubic(0.8, begin=100, end=200)
      >>> [round(float(ramp(count)), 3) for count in (100, 150, 200)]
      [0.0, 0.7, 0.8]
    """
    check_sparsity(sparsity)
    if not 0 <= begin < end:
        raise ValueError(f"begin={begin}, end={end}: 0 <= begin < end.")
    return optax.polynomial_schedule(0.0, sparsity, 3, end - begin, begin)


def one_shot(sparsity: float, *, at: int) -> optax.Schedule:
    """0 before update ``at``, ``sparsity`` from then on."""
    check_sparsity(sparsity)
    return lambda count: jnp.where(jnp.asarray(count) >= at, sparsity, 0.0)


def geometric(sparsity: float, *, rounds: int) -> optax.Schedule:
    """The same share of what is left in each of ``rounds``, ``sparsity`` after the last.

    Of rounds and not of updates: for ``converged`` and ``lottery_ticket``.
    """
    check_sparsity(sparsity)
    if rounds < 1:
        raise ValueError(f"rounds={rounds}: 1 or more.")

    def schedule(count: Any) -> jax.Array:
        done = jnp.minimum(jnp.asarray(count, jnp.float32), rounds) / rounds
        return 1.0 - jnp.power(1.0 - sparsity, done)

    return schedule


def alternating(
    sparsity: float, *, begin: int, dense: int, sparse: int, end: int
) -> optax.Schedule:
    """AC/DC: phases at ``sparsity`` and dense phases take turns.

    In a dense phase the weights that were pruned grow again from zero.

    Args:
      sparsity: of the sparse phases.
      begin: updates of the dense warm-up; a sparse phase comes first after it.
      dense: updates of a dense phase.
      sparse: updates of a sparse phase.
      end: from this update on it stays sparse.

    References:
      Peste et al., 2021, https://arxiv.org/abs/2106.12379

    Example:
      >>> import jaxcompress as jc
      >>> turns = jc.prune.schedules.alternating(0.9, begin=2, dense=1, sparse=2, end=7)
      >>> [round(float(turns(count)), 1) for count in range(9)]
      [0.0, 0.0, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9]
    """
    check_sparsity(sparsity)
    if min(dense, sparse) < 1:
        raise ValueError(
            f"dense={dense}, sparse={sparse}: phases of 1 or more updates."
        )

    def schedule(count: Any) -> jax.Array:
        in_sparse = (count - begin) % (sparse + dense) < sparse
        return jnp.where(((count >= begin) & in_sparse) | (count >= end), sparsity, 0.0)

    return schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trigger:
    """Decides at every update whether masks are redrawn.

    Attributes:
      init: ``() -> state``, any pytree of arrays.
      fire: ``(state, **extras) -> (redraw, state)`` with a bool scalar.
    """

    init: Callable[[], PyTree]
    fire: Callable[..., tuple[jax.Array, PyTree]]


class CountState(NamedTuple):
    """State of ``periodic``."""

    count: jax.Array  # int32 []: updates so far


def periodic(every: int, *, begin: int = 0, end: int | None = None) -> Trigger:
    """Redraw every so many updates after ``begin``, until ``end`` (included)."""
    if every < 1:
        raise ValueError(f"every={every}: masks are redrawn every 1 or more updates.")

    def fire(state: CountState, **extras: Any) -> tuple[jax.Array, CountState]:
        del extras
        count = state.count + 1
        due = (count > begin) & ((count - begin) % every == 0)
        return due if end is None else due & (count <= end), CountState(count)

    return Trigger(init=lambda: CountState(jnp.zeros((), jnp.int32)), fire=fire)


class ConvergedState(NamedTuple):
    """State of ``converged``."""

    best: jax.Array  # float32 []: lowest value since the last redrawing
    since: jax.Array  # int32 []: updates since it was found


def converged(patience: int, *, tolerance: float = 0.0) -> Trigger:
    """Redraw when the loss has stopped falling: prune until convergence, then on.

    The value is the extra ``value=``, which ``train_step`` passes: the loss of the step.

    Args:
      patience: redraw after so many updates without a lower value.
      tolerance: how much lower it has to be.

    Example:
      >>> import jaxcompress as jc
      >>> rounds = jc.prune.schedules.geometric(0.9, rounds=5)
      >>> pruner = jc.magnitude_pruning(rounds, every=jc.prune.schedules.converged(patience=200))
    """
    if patience < 1:
        raise ValueError(f"patience={patience}: 1 or more updates.")

    def fire(
        state: ConvergedState, *, value: Any = None, **extras: Any
    ) -> tuple[jax.Array, ConvergedState]:
        del extras
        if value is None:
            raise TypeError(
                "converged() needs value=..., the loss: train_step passes it; in a loop "
                "of your own, pruner.update(params, state, value=loss)."
            )
        value = jnp.asarray(value, jnp.float32)
        better = value < state.best - tolerance
        best = jnp.where(better, value, state.best)
        since = jnp.where(better, 0, state.since + 1)
        due = since >= patience
        return due, ConvergedState(
            jnp.where(due, jnp.inf, best), jnp.where(due, 0, since)
        )

    def init() -> ConvergedState:
        return ConvergedState(jnp.float32(jnp.inf), jnp.zeros((), jnp.int32))

    return Trigger(init=init, fire=fire)


def check_sparsity(sparsity: Any) -> None:
    """Refuse a sparsity outside [0, 1), where its value is known.

    Raises:
      ValueError: with the number that may have been meant.
    """
    # As a float: a comparison of arrays inside of a traced function would be traced.
    if not isinstance(sparsity, Tracer) and not 0 <= float(sparsity) < 1:
        hint = f" Did you mean {sparsity / 100:g}?" if 1 < sparsity < 100 else ""
        raise ValueError(f"sparsity={sparsity} is outside [0, 1).{hint}")
