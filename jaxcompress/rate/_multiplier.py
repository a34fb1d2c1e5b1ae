# SPDX-License-Identifier: Apache-2.0
"""The weight of the rate in the loss: constant, scheduled, or found for a size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

_FIRST = 0.1  # before the first measurement, if a size is asked for
_GAIN = 0.05  # share of the error, in logarithms, that one measurement corrects
_LEAST, _MOST = 1e-6, 1e4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Multiplier:
    """Marks in a compressor's state what one bit a weight costs in the loss.

    Attributes:
      value: float32 [].
      weights: how many weights share the bits (static).
      counts: whether the penalty counts the bits anew, instead of the value of the last
        count (static).
    """

    value: jax.Array
    weights: int = dataclasses.field(metadata={"static": True})
    counts: bool = dataclasses.field(default=False, metadata={"static": True})


# (multiplier, updates so far, bits now) -> the next multiplier
Rule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def rule_of(
    multiplier: float | optax.Schedule | None, target_bytes: float | None
) -> tuple[Callable[[], jax.Array], Rule]:
    """Return the first multiplier, and the rule that gives the next one.

    Raises:
      TypeError: if the multiplier is an array that is traced, or not a number.
      ValueError: if both or neither are given, or one is negative.
    """
    if (multiplier is None) == (target_bytes is None):
        raise ValueError(
            "pass either multiplier= or target_bytes=, not both; got "
            f"multiplier={multiplier}, target_bytes={target_bytes}."
        )
    if target_bytes is not None:
        return _ascend(_number("target_bytes", target_bytes))
    if callable(multiplier):
        schedule = multiplier
        return (
            lambda: _scheduled(schedule, jnp.zeros((), jnp.int32)),
            lambda value, count, bits: _scheduled(schedule, count),
        )
    value = _number("multiplier", multiplier)
    return (
        lambda: jnp.full((), value, jnp.float32),
        lambda value, count, bits: value,
    )


def _ascend(target: float) -> tuple[Callable[[], jax.Array], Rule]:
    """Raise the multiplier while the file is too large, and lower it while it is small."""

    def follow(value: jax.Array, count: jax.Array, bits: jax.Array) -> jax.Array:
        del count
        error = jnp.clip(jnp.log(bits / (8 * target)), -1.0, 1.0)
        return jnp.clip(value * jnp.exp(_GAIN * error), _LEAST, _MOST)

    return lambda: jnp.full((), _FIRST, jnp.float32), follow


def _scheduled(schedule: optax.Schedule, count: jax.Array) -> jax.Array:
    value = jnp.asarray(schedule(count), jnp.float32)
    # A negative multiplier would reward a large file. Inside jit there is no error.
    return jnp.maximum(value, 0.0)


def _number(name: str, value: Any) -> float:
    if isinstance(value, Tracer):
        raise TypeError(
            f"{name} must be a number, got a traced array. To change it in training, pass "
            "an optax schedule: multiplier=optax.linear_schedule(0.0, 0.3, 1000)."
        )
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}.") from None
    if not (number >= 0 and math.isfinite(number)):
        raise ValueError(f"{name} must be a finite number of at least 0, got {value}.")
    return number
