# SPDX-License-Identifier: Apache-2.0
"""The weight of the rate in the loss: constant, scheduled, or found for a size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from .._origin import Origin, check_origin, make_origin

_FIRST = 0.1  # before the first measurement, if a size is asked for
_GAIN = 0.05  # share of the error, in logarithms, that one measurement corrects
_LEAST, _MOST = 1e-6, 1e4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Marks in a compressor's state what one bit a weight costs in the loss.

    Attributes:
      value: float32 [].
      per: what costs this much in the loss: so many bits, or units of a cost (static).
      origin: the rule that moves the value.
      counts: whether the penalty counts the bits anew, instead of the value of the last
        count (static).
    """

    value: jax.Array
    per: float = dataclasses.field(metadata={"static": True})
    origin: Origin
    counts: bool = dataclasses.field(default=False, metadata={"static": True})


class Rule(NamedTuple):
    """How a multiplier starts and moves."""

    name: str  # what it was made for: states of another rule are refused
    first: Callable[[], jax.Array]
    # (multiplier, updates so far, what is spent now) -> the next multiplier
    follow: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
    target: float | None = None  # what may be spent, if the multiplier is found for it

    def start(self, per: float) -> Multiplier:
        """Return the multiplier before the first update."""
        return Multiplier(self.first(), per, make_origin(self.name))

    def check(self, multiplier: Multiplier) -> None:
        """Refuse the state of another rule, such as that of a checkpoint."""
        check_origin(multiplier.origin, self.name)


def rule_of(
    multiplier: float | optax.Schedule | None, name: str, target: float | None
) -> Rule:
    """Return the rule for a number, a schedule or a target.

    Args:
      multiplier: a number or a schedule; or
      name: of the argument that holds the target.
      target: what may be spent.

    Raises:
      TypeError: if the multiplier is an array that is traced, or not a number.
      ValueError: if both or neither are given, or one is negative.
    """
    if (multiplier is None) == (target is None):
        raise ValueError(
            f"pass multiplier= or {name}=."
            if target is None
            else f"pass either multiplier= or {name}=, not both; got "
            f"multiplier={multiplier}, {name}={target}."
        )
    if target is not None:
        return _ascend(name, check_amount(name, target))
    if callable(multiplier):
        schedule = multiplier
        return Rule(
            "multiplier_schedule",
            lambda: _scheduled(schedule, jnp.zeros((), jnp.int32)),
            lambda value, count, spent: _scheduled(schedule, count),
        )
    value = check_amount("multiplier", multiplier)
    return Rule(
        f"multiplier_{value:g}",
        lambda: jnp.full((), value, jnp.float32),
        lambda value, count, spent: value,
    )


def _ascend(name: str, target: float) -> Rule:
    """Raise the multiplier while too much is spent, and lower it while too little is."""

    def follow(value: jax.Array, count: jax.Array, spent: jax.Array) -> jax.Array:
        del count
        error = jnp.clip(jnp.log(spent / target), -1.0, 1.0)
        return jnp.clip(value * jnp.exp(_GAIN * error), _LEAST, _MOST)

    first = partial(jnp.full, (), _FIRST, jnp.float32)
    return Rule(f"{name}_{target:g}", first, follow, target)


def _scheduled(schedule: optax.Schedule, count: jax.Array) -> jax.Array:
    value = jnp.asarray(schedule(count), jnp.float32)
    if value.shape:
        raise ValueError(
            "the schedule of multiplier= must return a scalar, got an array of shape "
            f"{value.shape}."
        )
    if not isinstance(value, Tracer) and not (value >= 0 and jnp.isfinite(value)):
        raise ValueError(
            f"multiplier must be a finite number of at least 0, the schedule gives {value} "
            f"at count {count}."
        )
    # A negative multiplier would reward a large file. Inside jit there is no error.
    return jnp.maximum(value, 0.0)


def check_amount(name: str, value: Any) -> float:
    """Return a number of at least 0.

    Raises:
      TypeError: if it is traced, or not a number.
      ValueError: if it is negative or not finite.
    """
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} must be a number, got a traced array. To change it in training, pass "
            "an optax schedule: multiplier=optax.linear_schedule(0.0, 0.3, 1000)."
        )
    wrong = TypeError(f"{name} must be a number, got a {type(value).__name__}.")
    if isinstance(value, str | bool):  # float() takes them
        raise wrong
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
    return number
