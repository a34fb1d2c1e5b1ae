# SPDX-License-Identifier: Apache-2.0
"""The methods, each a compressor; what differs between runs of one is traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

import jaxcompress as jc

from ._config import Config


class Traced(NamedTuple):
    """What may change from run to run without a recompilation."""

    rate: jax.Array  # float32 []: learning rate
    sparsity: jax.Array  # float32 []
    erk: jax.Array  # bool []: ERK budgets, else uniform ones
    drop: jax.Array  # float32 []: fraction of the first exchange
    key: jax.Array  # PRNG key of random masks and growth


Method = Callable[[Config, Traced, int, int], jc.Compressor]
"""``(config, traced, every, steps) -> compressor``."""


def either(erk: jax.Array) -> jc.prune.budgets.Budget:
    """ERK or uniform, decided by a traced bool: one program for both."""

    def budget(
        scores: Mapping[str, jax.Array], sparsity: jax.Array
    ) -> dict[str, jax.Array]:
        return jax.tree.map(
            lambda one, other: jnp.where(erk, one, other),
            jc.prune.budgets.erk(scores, sparsity),
            jc.prune.budgets.uniform(scores, sparsity),
        )

    return budget


def dense(config: Config, t: Traced, every: int, steps: int) -> jc.Compressor:
    """Nothing is pruned."""
    del config, t, every, steps
    return jc.identity()


def gradual(config: Config, t: Traced, every: int, steps: int) -> jc.Compressor:
    """Gradual magnitude pruning: dense at first, then a cubic ramp."""
    ramp = jc.prune.schedules.cubic(
        t.sparsity,  # pyright: ignore[reportArgumentType]
        begin=steps // 20,
        end=_until(config, every, steps),
    )
    return jc.magnitude_pruning(ramp, budget=either(t.erk), every=every)


def exchanging(make: Callable[..., jc.Compressor]) -> Method:
    """Drop the smallest weights and grow as many, annealed by a cosine."""

    def method(config: Config, t: Traced, every: int, steps: int) -> jc.Compressor:
        return make(
            t.sparsity,
            key=t.key,
            until=_until(config, every, steps),
            drop=_cosine(config, t, every, steps),
            every=every,
            budget=either(t.erk),
        )

    return method


def static(config: Config, t: Traced, every: int, steps: int) -> jc.Compressor:
    """Random masks that never change."""
    del config, every, steps
    return jc.prune.static_sparse(
        t.sparsity,  # pyright: ignore[reportArgumentType]
        key=t.key,
        budget=either(t.erk),
    )


METHODS: dict[str, Method] = {
    "gradual pruning": gradual,
    "RigL": exchanging(jc.rigl),  # grows where the gradient is largest
    "SET": exchanging(jc.set_training),  # grows anywhere
    "static": static,
}


def _until(config: Config, every: int, steps: int) -> int:
    """The last update that changes masks: one that is due."""
    return max(every, int(config.until * steps) // every * every)


def _cosine(config: Config, t: Traced, every: int, steps: int) -> optax.Schedule:
    # A number is checked, which a traced one cannot be; a schedule is not.
    length = _until(config, every, steps)
    return optax.cosine_decay_schedule(t.drop, length)  # pyright: ignore[reportArgumentType]
