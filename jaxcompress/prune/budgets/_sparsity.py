# SPDX-License-Identifier: Apache-2.0
"""Budgets: how many weights to prune in each leaf for one overall sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jax.tree_util import Partial

from ..._select import closest, matches
from ..._signatures import name_defaults
from ...numerics import as_partial, one_program, smallest_per_leaf

Scores = Mapping[str, jax.Array]
Budget = Callable[[Scores, jax.Array], dict[str, jax.Array]]
"""``(scores, sparsity) -> counts``: how many weights of each leaf to prune. ``scores`` maps
paths to float arrays, ``sparsity`` is a float32 scalar (may be traced), and ``counts`` maps
paths to uint32 scalars. Every budget here leaves each leaf at least one weight, unless the
sparsity is 1: without it, the layer would pass nothing on."""


def uniform(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Prune the same fraction of every leaf: the default."""
    return {path: count_of(sparsity, score.size) for path, score in scores.items()}


def global_(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Rank all weights together and prune the lowest, in whichever leaf they are.

    The largest of a leaf is kept even if it ranks among them, unless the sparsity is 1.
    """
    total = sum(score.size for score in scores.values())
    dtype = jnp.result_type(*scores.values())  # bfloat16 and float16 widen exactly
    counts = smallest_per_leaf(
        [score.astype(dtype) for score in scores.values()],
        jnp.asarray(sparsity, jnp.float32) * total,
    )
    return {
        path: _leave_one(count, score.size, sparsity)
        for (path, score), count in zip(scores.items(), counts, strict=True)
    }


def erk(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Keep a larger fraction of small leaves than of large ones (Erdos-Renyi-kernel).

    The usual budget of dynamic sparse training. The density of a leaf is proportional
    to ``sum(shape) / prod(shape)`` and at most 1. Bisection on traced values finds the
    factor that meets the overall ``sparsity``, so a schedule or a ``vmap`` over
    sparsities does not recompile.

    References:
      Evci et al., 2020, https://arxiv.org/abs/1911.11134
    """
    raw_densities = jnp.asarray(
        [max(1, sum(s.shape)) / max(1, s.size) for s in scores.values()], jnp.float32
    )
    # 1 / min(raw) makes every leaf dense.
    densities = Partial(_scaled_densities, raw_densities)
    return _solve_densities(scores, sparsity, densities, 1.0 / raw_densities.min())


def _scaled_densities(raw: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.minimum(1.0, x * raw)


def owl(outliers: float = 5.0, spread: float = 0.08) -> Budget:
    """Keep more of the leaves that have many outlier scores (OWL), for language models.

    OWL is outlier-weighed layerwise sparsity; use it with the score ``wanda``. The
    densities of any two leaves differ by at most ``2 * spread``. They follow the
    fraction of a leaf's scores above ``outliers`` times its mean.

    Args:
      outliers: multiple of the mean above which a score is an outlier.
      spread: half the width of the range of densities.

    References:
      Yin et al., 2024, https://arxiv.org/abs/2310.05175
    """

    def budget(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        shares = jnp.stack(
            [
                jnp.sum(s > outliers * (jnp.sum(s) / max(1, s.size))) / max(1, s.size)
                for s in scores.values()
            ]
        ).astype(jnp.float32)
        low, high = shares.min(), shares.max()
        width = jnp.where(high > low, high - low, 1.0)
        offset = (shares - low) / width * 2 * spread
        # The range goes from density 0 at the lowest leaf to density 1 at all leaves.
        densities = Partial(_shifted_densities, offset - 2 * spread)
        return _solve_densities(
            scores, sparsity, densities, jnp.asarray(1 + 2 * spread)
        )

    return budget


def _shifted_densities(offset: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.clip(x + offset, 0, 1)


@name_defaults
def per_path(
    sparsities: Mapping[str, float | Callable[[jax.Array], jax.Array]],
    rest: Budget = uniform,
) -> Budget:
    """Set the sparsity of some leaves by path; the others share the overall sparsity.

    Args:
      sparsities: ``{glob: sparsity}``; the first match wins. A number is the sparsity of
        the leaf, independent of the overall one. A function computes it from the overall
        one, such as ``lambda s: s / 2`` under a rising schedule; it is clipped to [0, 1].
      rest: the budget for leaves that no glob matches.

    Raises:
      ValueError: if a sparsity is outside [0, 1]; when masks are drawn, if a glob matches
        no leaf.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"kernel": jnp.ones((4, 4))}, "b": {"kernel": jnp.ones((4, 4))}}
      >>> budget = jc.prune.budgets.per_path({"a/*": 0.25})
      >>> small = jc.compress(jc.magnitude_pruning(0.5, budget=budget), params)
      >>> [int((layer["kernel"] == 0).sum()) for layer in small.values()]
      [4, 8]
    """
    for glob, value in sparsities.items():
        if isinstance(value, int | float) and not 0 <= value <= 1:
            raise ValueError(f"{glob!r}: sparsity must be in [0, 1], got {value}.")

    def budget(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        glob_of = {
            path: next((glob for glob in sparsities if matches(glob, path)), None)
            for path in scores
        }
        for glob in sparsities:
            if glob not in glob_of.values():
                near = ", ".join(map(repr, closest(glob, list(scores))))
                raise ValueError(
                    f"each glob of per_path must be the first to match some leaf, got "
                    f"{glob!r}; closest leaves: {near}."
                )
        other_scores = {path: s for path, s in scores.items() if glob_of[path] is None}
        counts = rest(other_scores, sparsity) if other_scores else {}
        for path, glob in glob_of.items():
            if glob is not None:
                value = sparsities[glob]
                own = value(sparsity) if callable(value) else value
                counts[path] = count_of(jnp.asarray(own), scores[path].size)
        return {path: counts[path] for path in scores}

    return budget


def below(threshold: float) -> Budget:
    """Prune every score below a threshold, however many there are.

    It ignores the overall sparsity, and keeps the highest score of a leaf that has none
    above the threshold. Soft movement pruning uses it.
    """

    def budget(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        del sparsity
        return {
            path: _leave_one(
                jnp.sum(score < threshold, dtype=jnp.uint32), score.size, 0.0
            )
            for path, score in scores.items()
        }

    return budget


@one_program("size")
def count_of(
    share: jax.Array, size: int, sparsity: jax.Array | None = None
) -> jax.Array:
    """Convert a share into a number of weights out of ``size``, as a uint32 scalar.

    Args:
      share: share to prune, clipped to [0, 1]; NaN counts as 0.
      size: number of weights of the leaf.
      sparsity: overall sparsity; below 1 at least one weight is left. None: the share.
    """
    share = jnp.clip(jnp.nan_to_num(jnp.asarray(share, jnp.float32), nan=0), 0, 1)
    count = jnp.round(share * size).astype(jnp.uint32)
    return _leave_one(count, size, share if sparsity is None else sparsity)


def _leave_one(count: jax.Array, size: int, sparsity: jax.Array | float) -> jax.Array:
    """Limit a count to all weights but one, unless the sparsity is 1."""
    most = jnp.where(sparsity >= 1, size, max(size - 1, 0)).astype(jnp.uint32)
    return jnp.minimum(count, most)


def bisect(
    enough: Callable[[jax.Array], jax.Array], high: jax.Array, steps: int = 40
) -> jax.Array:
    """Find the smallest x in [0, high] with ``enough(x)`` and all above it; else ``high``.

    40 halvings exhaust float32. Eagerly, only a ``Partial`` is not compiled anew.
    """
    return _bisect(as_partial(enough), high, steps)


@one_program("steps")
def _bisect(enough: Partial, high: jax.Array, steps: int) -> jax.Array:
    def halve(
        _: int, bounds: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        is_enough = enough(middle)
        return (
            jnp.where(is_enough, low, middle),
            jnp.where(is_enough, middle, high),
        )

    return lax.fori_loop(0, steps, halve, (jnp.zeros_like(high), high))[1]


def _keeps_enough(
    densities: Partial, sizes: jax.Array, keep: jax.Array, x: jax.Array
) -> jax.Array:
    return jnp.sum(densities(x) * sizes) >= keep


def _solve_densities(
    scores: Scores,
    sparsity: jax.Array,
    densities: Partial,
    high: jax.Array,
) -> dict[str, jax.Array]:
    """Solve ``densities(x)`` for the overall sparsity; return the counts to prune."""
    sizes = jnp.asarray([float(score.size) for score in scores.values()])
    keep = (1.0 - sparsity) * sizes.sum()
    x = bisect(Partial(_keeps_enough, densities, sizes, keep), high)
    density = densities(x)
    return {
        path: count_of(1.0 - density[i], score.size, sparsity)
        for i, (path, score) in enumerate(scores.items())
    }
