# SPDX-License-Identifier: Apache-2.0
"""Schedules and triggers: when masks are redrawn, and at which sparsity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from .._arguments import check_whole
from .scores._immediate import PyTree

__all__ = [
    "Trigger",
    "alternating",
    "as_trigger",
    "converged",
    "cubic",
    "geometric",
    "one_shot",
    "periodic",
]


def cubic(sparsity: float, *, begin: int = 0, end: int) -> optax.Schedule:
    """Ramp the sparsity from 0 at ``begin`` to ``sparsity`` at ``end``, fast at first.

    The standard schedule for gradual pruning: it prunes most while many weights are still
    redundant.

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
        raise ValueError(f"0 <= begin < end must hold, got begin={begin}, end={end}.")
    return optax.polynomial_schedule(0.0, sparsity, 3, end - begin, begin)


def one_shot(sparsity: float, *, at: int) -> optax.Schedule:
    """Jump from sparsity 0 to ``sparsity`` at update ``at``."""
    check_sparsity(sparsity)
    return lambda count: jnp.where(jnp.asarray(count) >= at, sparsity, 0.0)


def geometric(sparsity: float, *, rounds: int) -> optax.Schedule:
    """Prune the same fraction of the remaining weights in each of ``rounds`` rounds.

    After the last round the sparsity is ``sparsity``. It counts rounds, not updates: use it
    with ``converged`` or for ``lottery_ticket``.
    """
    check_sparsity(sparsity)
    check_whole(rounds=rounds)
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got rounds={rounds}.")

    def schedule(count: Any) -> jax.Array:
        # Compiled code multiplies by the reciprocal, which may not bring `rounds` to 1.
        rounds_done = jnp.asarray(count, jnp.float32)
        progress = jnp.where(
            rounds_done >= rounds, 1, rounds_done * np.float32(1 / rounds)
        )
        return 1.0 - jnp.power(1.0 - sparsity, progress)

    return schedule


def alternating(
    sparsity: float, *, begin: int, dense: int, sparse: int, end: int
) -> optax.Schedule:
    """Alternate sparse and dense training phases (AC/DC).

    In a dense phase, pruned weights grow back from zero.

    Args:
      sparsity: sparsity of the sparse phases.
      begin: length of the dense warm-up, in updates; a sparse phase follows it.
      dense: length of a dense phase, in updates.
      sparse: length of a sparse phase, in updates.
      end: update from which the network stays sparse.

    References:
      Peste et al., 2021, https://arxiv.org/abs/2106.12379

    Example:
      >>> import jaxcompress as jc
      >>> turns = jc.prune.schedules.alternating(0.9, begin=2, dense=1, sparse=2, end=7)
      >>> [round(float(turns(count)), 1) for count in range(9)]
      [0.0, 0.0, 0.9, 0.9, 0.0, 0.9, 0.9, 0.9, 0.9]
    """
    check_sparsity(sparsity)
    check_whole(dense=dense, sparse=sparse)
    if min(dense, sparse) < 1:
        raise ValueError(
            "dense and sparse must be at least 1 update each, got "
            f"dense={dense}, sparse={sparse}."
        )

    def schedule(count: Any) -> jax.Array:
        in_sparse = (count - begin) % (sparse + dense) < sparse
        return jnp.where(((count >= begin) & in_sparse) | (count >= end), sparsity, 0.0)

    return schedule


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trigger:
    """Decide at every update whether to redraw the masks; pass it as ``every=``.

    Attributes:
      init: ``() -> state``, any pytree of arrays.
      fire: ``(state, **extras) -> (redraw, state)``; ``redraw`` is a bool scalar. One of
        the extras is ``count``, the number of updates or redraws including this one.
      counts_redraws: whether the sparsity schedule counts redraws or updates.
    """

    init: Callable[[], PyTree]
    fire: Callable[..., tuple[jax.Array, PyTree]]
    counts_redraws: bool = True


def as_trigger(every: int | Trigger) -> Trigger:
    """Give a number of updates between redraws the interface of a ``Trigger``.

    Raises:
      TypeError: if ``every`` is neither a whole number nor a ``Trigger``.
      ValueError: if it is below 1.
    """
    if isinstance(every, Trigger):
        return every
    if not isinstance(every, int) or isinstance(every, bool):
        raise TypeError(
            "every must be an integer or a Trigger such as converged(patience=100), got "
            f"{every!r}."
        )
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got every={every}.")

    def fire(
        state: PyTree, *, count: jax.Array, **extras: Any
    ) -> tuple[jax.Array, PyTree]:
        del extras
        return count % every == 0, state

    return Trigger(init=lambda: (), fire=fire, counts_redraws=False)


class CountState(NamedTuple):
    """State of ``periodic``."""

    count: jax.Array  # int32 []: updates so far


def periodic(every: int, *, begin: int = 0, end: int | None = None) -> Trigger:
    """Redraw every ``every`` updates after ``begin``, until ``end`` (inclusive)."""
    check_whole(every=every, begin=begin, end=end)
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got every={every}.")

    def fire(state: CountState, **extras: Any) -> tuple[jax.Array, CountState]:
        del extras
        count = state.count + 1
        due = (count > begin) & ((count - begin) % every == 0)
        return due if end is None else due & (count <= end), CountState(count)

    return Trigger(init=lambda: CountState(jnp.zeros((), jnp.int32)), fire=fire)


class ConvergedState(NamedTuple):
    """State of ``converged``."""

    best: jax.Array  # float32 []: lowest value since the last redraw
    since: jax.Array  # int32 []: updates since that value


def converged(patience: int, *, tolerance: float = 0.0) -> Trigger:
    """Redraw when the loss stops falling: train until convergence, then prune further.

    It reads the extra ``value=``, the loss of the step, which ``train_step`` passes.

    Args:
      patience: number of updates without a lower value before a redraw.
      tolerance: how much lower a value must be to count as lower.

    Example:
      >>> import jaxcompress as jc
      >>> rounds = jc.prune.schedules.geometric(0.9, rounds=5)
      >>> stopped_falling = jc.prune.schedules.converged(patience=200)
      >>> pruner = jc.magnitude_pruning(rounds, every=stopped_falling)
    """
    check_whole(patience=patience)
    if patience < 1:
        raise ValueError(
            f"patience must be at least 1 update, got patience={patience}."
        )

    def fire(
        state: ConvergedState, *, value: Any = None, **extras: Any
    ) -> tuple[jax.Array, ConvergedState]:
        del extras
        if value is None:
            raise TypeError(
                "converged() needs value=..., the loss of the step. train_step passes it; "
                "in your own loop, call pruner.update(params, state, value=loss)."
            )
        value = jnp.asarray(value, jnp.float32)
        improved = value < state.best - tolerance
        best = jnp.where(improved, value, state.best)
        since = jnp.where(improved, 0, state.since + 1)
        due = since >= patience
        return due, ConvergedState(
            jnp.where(due, jnp.inf, best), jnp.where(due, 0, since)
        )

    def init() -> ConvergedState:
        return ConvergedState(jnp.float32(jnp.inf), jnp.zeros((), jnp.int32))

    return Trigger(init=init, fire=fire)


def share_at(schedule: optax.Schedule, count: Any, name: str) -> jax.Array:
    """Evaluate a schedule of a share: float32 [], in [0, 1] or NaN.

    Traced values are clipped to [0, 1]. A traced NaN comes back as NaN, for the caller to
    change nothing.

    Args:
      schedule: ``count -> share``.
      count: where to evaluate it.
      name: name of the share, for the error.

    Raises:
      ValueError: if a concrete value is outside [0, 1] or NaN.
    """
    share = jnp.asarray(schedule(count), jnp.float32)
    if not isinstance(share, Tracer) and not 0 <= float(share) <= 1:
        raise ValueError(
            f"{name} must be in [0, 1], the schedule gives {float(share):g} at count "
            f"{count}.{_percent_hint(float(share))}"
        )
    return jnp.clip(share, 0, 1)


def check_sparsity(sparsity: Any) -> None:
    """Refuse a concrete sparsity outside [0, 1). Tracers pass.

    Raises:
      ValueError: and suggests the fraction, if the number looks like a percentage.
    """
    # As a float: inside a traced function, comparing arrays gives a tracer.
    if not isinstance(sparsity, Tracer) and not 0 <= float(sparsity) < 1:
        raise ValueError(
            f"sparsity must be in [0, 1), got {sparsity}.{_percent_hint(sparsity)}"
        )


def _percent_hint(share: float) -> str:
    return f" Did you mean {share / 100:g}?" if 1 < share < 100 else ""
