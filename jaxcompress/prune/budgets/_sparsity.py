# SPDX-License-Identifier: Apache-2.0
"""Budgets: how many weights each leaf gives up for one overall sparsity."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import lax

from ..._select import closest, matches
from ...numerics import smallest_per_leaf

Scores = Mapping[str, jax.Array]
Budget = Callable[[Scores, jax.Array], dict[str, jax.Array]]
"""``(scores, sparsity) -> counts``: float arrays by path and a float32 scalar, traced or
not, to uint32 scalars by path: how many weights of each leaf to prune."""


def uniform(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Prune the same fraction of every leaf."""
    return {path: share(sparsity, score.size) for path, score in scores.items()}


def global_(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Rank all weights together: prune the lowest wherever they are."""
    total = sum(score.size for score in scores.values())
    dtype = jnp.result_type(*scores.values())  # bfloat16 and float16 widen exactly
    counts = smallest_per_leaf(
        [score.astype(dtype) for score in scores.values()],
        jnp.asarray(sparsity, jnp.float32) * total,
    )
    return dict(zip(scores, counts, strict=True))


def erk(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
    """Erdos-Renyi-kernel: keep more of small leaves than of large ones.

    The density of a leaf is proportional to ``sum(shape) / prod(shape)`` and at most 1;
    the factor that makes the whole come out at ``sparsity`` is found by bisection on
    traced values, so a schedule or a ``vmap`` over sparsities costs no recompilation.

    References:
      Evci et al., 2020, https://arxiv.org/abs/1911.11134
    """
    raw = jnp.asarray(
        [max(1, sum(s.shape)) / max(1, s.size) for s in scores.values()], jnp.float32
    )
    # 1 / min(raw) makes every leaf dense.
    return _at_densities(
        scores, sparsity, lambda x: jnp.minimum(1.0, x * raw), 1.0 / raw.min()
    )


def owl(outliers: float = 5.0, spread: float = 0.08) -> Budget:
    """Outlier-weighed: keep more of leaves in which some scores tower above the rest.

    Densities of leaves lie within ``2 * spread`` of one another, in the order of their
    shares of scores above ``outliers`` times the leaf's mean.

    Args:
      outliers: how many times the mean makes an outlier.
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
        # From no density for the least of them to a full one for all.
        return _at_densities(
            scores, sparsity, lambda x: jnp.clip(x - 2 * spread + offset, 0, 1),
            jnp.asarray(1 + 2 * spread),
        )  # fmt: skip

    return budget


def per_path(
    sparsities: Mapping[str, float | Callable[[jax.Array], jax.Array]],
    rest: Budget = uniform,
) -> Budget:
    """Sparsities of their own for some leaves; the others share the overall one.

    Args:
      sparsities: ``{glob: sparsity}``, the first match counts. A number is the sparsity
        of the leaf whatever the overall one; a function makes it of the overall one, as
        ``lambda s: s / 2`` under a rising schedule.
      rest: the budget of the leaves that no glob matches.

    Raises:
      ValueError: for a sparsity outside [0, 1], and when it is used, for a glob that
        matches no leaf.

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
            raise ValueError(f"{glob!r}: sparsity={value} is outside [0, 1].")

    def budget(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        chosen = {
            path: next((glob for glob in sparsities if matches(glob, path)), None)
            for path in scores
        }
        for glob in sparsities:
            if glob not in chosen.values():
                near = ", ".join(map(repr, closest(glob, list(scores))))
                raise ValueError(
                    f"per_path: {glob!r} is the first match of no leaf; closest: {near}."
                )
        others = {path: s for path, s in scores.items() if chosen[path] is None}
        counts = rest(others, sparsity) if others else {}
        for path, glob in chosen.items():
            if glob is not None:
                value = sparsities[glob]
                own = value(sparsity) if callable(value) else value
                counts[path] = share(jnp.asarray(own), scores[path].size)
        return {path: counts[path] for path in scores}

    return budget


def below(threshold: float) -> Budget:
    """Prune every score below a threshold, however many that are.

    The overall sparsity is not looked at; soft movement pruning uses this.
    """

    def budget(scores: Scores, sparsity: jax.Array) -> dict[str, jax.Array]:
        del sparsity
        return {
            path: jnp.sum(score < threshold, dtype=jnp.uint32)
            for path, score in scores.items()
        }

    return budget


def share(sparsity: jax.Array, size: int) -> jax.Array:
    """So many of ``size`` weights, as a uint32 scalar."""
    return jnp.round(jnp.asarray(sparsity, jnp.float32) * size).astype(jnp.uint32)


def bisect(
    enough: Callable[[jax.Array], jax.Array], high: jax.Array, steps: int = 40
) -> jax.Array:
    """The least x in [0, high] from which on ``enough(x)`` holds; ``high`` if none.

    40 halvings exhaust float32.
    """

    def halve(
        _: int, bounds: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = (low + high) / 2
        found = enough(middle)
        return jnp.where(found, low, middle), jnp.where(found, middle, high)

    return lax.fori_loop(0, steps, halve, (jnp.zeros_like(high), high))[1]


def _at_densities(
    scores: Scores,
    sparsity: jax.Array,
    densities: Callable[[jax.Array], jax.Array],
    high: jax.Array,
) -> dict[str, jax.Array]:
    """Counts at densities that rise with one number, which meets the sparsity."""
    sizes = jnp.asarray([float(score.size) for score in scores.values()])
    keep = (1.0 - sparsity) * sizes.sum()
    x = bisect(lambda x: jnp.sum(densities(x) * sizes) >= keep, high)
    density = densities(x)
    return {
        path: share(1.0 - density[i], score.size)
        for i, (path, score) in enumerate(scores.items())
    }
