# SPDX-License-Identifier: Apache-2.0
"""Budgets: how many weights each leaf gives up for one overall sparsity."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics import smallest_per_leaf

Budget = Callable[[Sequence[jax.Array], jax.Array], list[jax.Array]]
"""``(scores, sparsity) -> counts``: one float array a leaf and a float32 scalar, traced
or not, to one int32 scalar a leaf: how many of its weights to prune."""


def uniform(scores: Sequence[jax.Array], sparsity: jax.Array) -> list[jax.Array]:
    """Prune the same fraction of every leaf."""
    return [_count(sparsity, score.size) for score in scores]


def global_(scores: Sequence[jax.Array], sparsity: jax.Array) -> list[jax.Array]:
    """Rank all weights together: prune the lowest wherever they are."""
    total = sum(score.size for score in scores)
    dtype = jnp.result_type(*scores)  # bfloat16 and float16 widen exactly
    return smallest_per_leaf(
        [score.astype(dtype) for score in scores], _count(sparsity, total)
    )


def erk(scores: Sequence[jax.Array], sparsity: jax.Array) -> list[jax.Array]:
    """Erdos-Renyi-kernel: keep more of small leaves than of large ones.

    The density of a leaf is proportional to ``sum(shape) / prod(shape)`` and at most 1;
    the factor that makes the whole come out at ``sparsity`` is found by bisection on
    traced values, so a schedule or a ``vmap`` over sparsities costs no recompilation.

    References:
      Evci et al., 2020, https://arxiv.org/abs/1911.11134
    """
    sizes = jnp.asarray([float(score.size) for score in scores])
    raw = jnp.asarray([sum(score.shape) / score.size for score in scores])
    keep = (1.0 - sparsity) * sizes.sum()

    def halve(
        _: int, bounds: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        over = jnp.sum(jnp.minimum(1.0, middle * raw) * sizes) > keep
        return jnp.where(over, low, middle), jnp.where(over, middle, high)

    # 1 / min(raw) makes every leaf dense; 40 halvings exhaust float32.
    bounds = jnp.zeros(()), 1.0 / raw.min()
    factor = lax.fori_loop(0, 40, halve, bounds)[1]
    density = jnp.minimum(1.0, factor * raw)
    return [_count(1.0 - density[i], score.size) for i, score in enumerate(scores)]


def _count(sparsity: jax.Array, size: int) -> jax.Array:
    return jnp.round(jnp.asarray(sparsity, jnp.float32) * size).astype(jnp.int32)
