# SPDX-License-Identifier: Apache-2.0
"""Times of networks beside each other, in interleaved rounds of one process."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import jax


class Time(NamedTuple):
    """Of one call."""

    seconds: float  # median of the rounds
    ratio: float  # median over the rounds of the time, divided by that of the first


def interleaved(
    calls: Mapping[Hashable, Callable[[], Any]], rounds: int
) -> dict[Any, Time]:
    """Time every call once a round, each round in a new random order.

    Neighbors on the machine slow a whole round more than one call of it, so ratios are
    taken within rounds.

    Args:
      calls: by name; the first is the baseline. They return arrays.
      rounds: how many, after two that are not timed.
    """
    seconds: dict[Any, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    for _ in range(rounds + 2):
        shuffle(order)
        for name in order:
            start = time.perf_counter()
            jax.block_until_ready(calls[name]())
            seconds[name].append(time.perf_counter() - start)
    base, *_ = (each[2:] for each in seconds.values())
    return {
        name: Time(
            statistics.median(each[2:]),
            statistics.median(a / b for a, b in zip(each[2:], base, strict=True)),
        )
        for name, each in seconds.items()
    }
