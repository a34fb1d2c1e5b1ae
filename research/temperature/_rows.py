# SPDX-License-Identifier: Apache-2.0
"""The rows of the study: temperatures at equal weights, and at chosen ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from ..stages import JOINTLY, LABELS, LONGER, QUANTIZE, Row, Teaching, key_of, outer
from ._config import Config


def kinds(config: Config) -> list[Teaching]:
    """The temperatures at equal weights."""
    steady = [Teaching(config.weight, t, t) for t in config.temperatures]
    # A trial compiles as little as there can be.
    limit = [] if config.quick else [Teaching(config.weight, squared=True)]
    return [*steady, *limit]


def controls(config: Config) -> list[tuple[str, int | None]]:
    """Methods and bits of the students."""
    few = (JOINTLY, min(config.bits))
    quantized = [(QUANTIZE, bits) for bits in reversed(outer(config))]
    return [few] if config.quick else [few, *quantized, (LONGER, None)]


def of_temperatures(config: Config) -> Iterator[Row]:
    """Every student and temperature, at equal weights."""
    falling = [Teaching(config.weight, t, 1.0) for t in config.falling]
    for method, bits in controls(config):
        for teaching in [LABELS, *kinds(config), *falling]:
            yield Row("temperatures", method, bits, teaching)


def of_weights(config: Config) -> Iterator[Row]:
    """The smallest student, with the weight that was chosen for every temperature."""
    few = min(config.bits)
    for kind in kinds(config):
        weight = config.weights[f"{key_of(JOINTLY, few)}, {kind.name}"]
        yield Row("weights", JOINTLY, few, dataclasses.replace(kind, weight=weight))
