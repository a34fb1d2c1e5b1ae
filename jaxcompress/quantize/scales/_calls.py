# SPDX-License-Identifier: Apache-2.0
"""Count the arrays of one call of a function once: a loop shows a scale one per trip."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ...formats import Format
from ...numerics import cond


class Call(NamedTuple):
    """Merge the arrays that a scale observes in one call: three pure functions.

    ``end(state, add(start(state), state, x, fmt))`` is what ``observe`` gives for ``x``.

    Attributes:
      start: ``state -> seen``: nothing has been seen in this call.
      add: ``(seen, state, x, fmt) -> seen``, updated with the array ``x``; ``state`` is
        the state before the call.
      end: ``(state, seen) -> state`` after the call; unchanged if nothing was seen.
    """

    start: Callable[[Any], Any]
    add: Callable[[Any, Any, jax.Array, Format], Any]
    end: Callable[[Any, Any], Any]


class Largest(NamedTuple):
    """What ``largest`` has seen in a call."""

    magnitude: jax.Array  # float32 []: largest magnitude; -1 before the first array
    state: Any  # the state after observing the array that has it


def largest(observe: Callable[[Any, jax.Array, Format], Any]) -> Call:
    """Of all arrays in a call, observe only the one with the largest magnitude.

    Use it for scales that are computed from one array and cannot be merged. In a recurrent
    network the first array is the empty state, which says nothing about the others.

    Args:
      observe: ``(state, x, fmt) -> state``.
    """

    def start(state: Any) -> Largest:
        return Largest(jnp.full((), -1, jnp.float32), state)

    def add(seen: Largest, state: Any, x: jax.Array, fmt: Format) -> Largest:
        magnitude = jnp.max(jnp.abs(lax.stop_gradient(x))).astype(jnp.float32)
        # A NaN replaces everything, and nothing replaces a NaN.
        is_larger = (magnitude > seen.magnitude) | jnp.isnan(magnitude)
        new = cond(is_larger, lambda: observe(state, x, fmt), lambda: seen.state)
        return Largest(jnp.maximum(seen.magnitude, magnitude), new)

    return Call(start, add, lambda state, seen: seen.state)
