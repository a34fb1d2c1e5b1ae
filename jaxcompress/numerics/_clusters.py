# SPDX-License-Identifier: Apache-2.0
"""K-means of the values of one array, which are clusters of neighbors on a line."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ._eager import one_program
from ._smallest import flat_index
from .histogram import COUNT, edges, histogram

# A sum in float32 over more terms than this is taken in parts.
_PART = 1 << 14
# Above this many edges, XLA for CPU no longer fuses comparisons with all of them.
_COMPARED = 32
# A later start must be better by this factor, so that rounding decides nothing.
_BETTER = 0.99


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def find_clusters(
    leaf: jax.Array, clusters: int, keep_zero: bool, iterations: int
) -> jax.Array:
    """Find the centroids of an array by k-means, the best of three starts.

    Args:
      leaf: float array of any shape, not empty. Values that are not finite are ignored.
      clusters: number of centroids.
      keep_zero: True pins one centroid to exactly zero.
      iterations: number of iterations.

    Returns:
      ``(clusters,)`` of the dtype of the leaf, ascending.
    """
    wide = _finite_or_zero(leaf)
    low, high = jnp.min(wide), jnp.max(wide)
    share = jnp.linspace(0, 1, clusters)
    dense = spread_clusters(leaf, clusters, keep_zero)
    # With its ends at those of the range, a start keeps single large values.
    ends = dense.at[0].set(low.astype(leaf.dtype)).at[-1].set(high.astype(leaf.dtype))
    even = (low * (1 - share) + high * share).astype(leaf.dtype)

    def improve(start: jax.Array) -> tuple[jax.Array, jax.Array]:
        def move(_: int, centroids: jax.Array) -> jax.Array:
            return move_clusters(leaf, centroids, keep_zero)

        start = _pin_zero(start) if keep_zero else start
        centroids = lax.fori_loop(0, iterations, move, start)
        error = wide - centroids[nearest_cluster(wide, centroids)].astype(wide.dtype)
        largest = jnp.maximum(jnp.max(jnp.abs(wide)), jnp.finfo(wide.dtype).tiny)
        return centroids, jnp.sum((error / largest) ** 2)

    candidates, errors = lax.map(improve, jnp.stack([dense, ends, even]))
    best, least = candidates[0], errors[0]
    for centroids, error in zip(candidates[1:], errors[1:], strict=True):
        is_better = error < _BETTER * least
        best = jnp.where(is_better, centroids, best)
        least = jnp.where(is_better, error, least)
    return best


def spread_clusters(leaf: jax.Array, clusters: int, keep_zero: bool) -> jax.Array:
    """Place centroids where k-means starts: closer together where there are more values.

    The density of centroids is the cube root of the density of the values, which has the
    least squared error if there are many. Centroids spaced evenly over the range would
    all be spent on the gap before a single outlier, and quantiles would miss the outlier.

    Args:
      leaf: float array of any shape. Values that are not finite are ignored.
      clusters: number of centroids.
      keep_zero: True ignores zeros, which have a centroid of their own.

    Returns:
      ``(clusters,)`` of the dtype of the leaf, ascending.

    References:
      Panter and Dite, 1951, "Quantization distortion in pulse-count modulation with
      nonuniform spacing of levels"
    """
    wide = _finite_or_zero(leaf)
    largest = jnp.max(jnp.abs(wide), initial=0)
    # In units of the largest, since the buckets end at 2**-32.
    counts = histogram(wide / jnp.where(largest > 0, largest, 1))[:, :COUNT]
    ignored = ~jnp.isfinite(leaf) | ((leaf == 0) if keep_zero else False)
    counts = counts.at[1, 0].add(-jnp.sum(ignored, dtype=jnp.int32))
    counts = jnp.concatenate([counts[0, ::-1], counts[1]]).astype(jnp.float32)
    ends = np.concatenate([-edges()[::-1], np.zeros(1, np.float32), edges()])
    ends = np.clip(ends, -1, 1)  # nothing is beyond the largest
    # The integral of the cube root of the density.
    mass = jnp.cumsum(jnp.cbrt(counts * np.diff(ends) ** 2))
    wanted = (jnp.arange(clusters) + 0.5) / clusters * mass[-1]
    mass = jnp.concatenate([jnp.zeros(1), mass])
    centroids = jnp.interp(wanted, mass, jnp.asarray(ends)) * largest
    return centroids.astype(leaf.dtype)


@one_program()
def nearest_cluster(leaf: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the index of the nearest centroid of every value, int32."""
    wide = jnp.promote_types(leaf.dtype, jnp.float32)  # float16 sums overflow
    leaf = lax.stop_gradient(leaf).astype(wide)
    centroids = lax.stop_gradient(centroids).astype(wide)
    midpoints = centroids[1:] / 2 + centroids[:-1] / 2
    # A value equal to a centroid (zero!) gets it, even if rounding put a midpoint there.
    method = "compare_all" if len(centroids) <= _COMPARED else "scan_unrolled"
    index = jnp.searchsorted(midpoints, leaf, method=method)
    exact = jnp.searchsorted(centroids, leaf, method=method)
    exact = jnp.minimum(exact, len(centroids) - 1)
    return jnp.where(centroids[exact] == leaf, exact, index)


@one_program("keep_zero", "revive")
def move_clusters(
    leaf: jax.Array, centroids: jax.Array, keep_zero: bool, revive: bool = True
) -> jax.Array:
    """Move each centroid to the mean of its values: one iteration of k-means.

    A centroid without values that is revived moves next to the centroid with the largest
    deviations, and takes a part of its values in the next iteration.

    Args:
      leaf: float array of any shape. Values that are not finite are ignored.
      centroids: ``(clusters,)``, ascending.
      keep_zero: True leaves a centroid at zero where it is.
      revive: whether centroids without values move; if not, they stay where they are.

    Returns:
      Array like ``centroids``, ascending.
    """
    index, size = nearest_cluster(leaf, centroids), len(centroids)
    wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    start = centroids.astype(wide.dtype)
    finite = jnp.isfinite(wide)
    # Deviations from the centroid, not values: their sum loses no digits to the mean.
    deviations = jnp.where(finite, wide - start[index], 0)
    counts, total, spread = _sums_by_cluster(index, finite, deviations, size)
    each = 1 / jnp.maximum(counts, 1).astype(wide.dtype)
    mean, spread_each = start + total * each, spread * each
    pinned = (jnp.arange(size) == _zero(start)) & (start == 0) & keep_zero
    moved = jnp.where(pinned, 0, mean)
    if not revive:
        return jnp.sort(moved.astype(centroids.dtype))
    unused = (counts == 0) & ~pinned
    order = jnp.argsort(-spread, stable=True)
    split = order[jnp.maximum(jnp.cumsum(unused) - 1, 0)]
    bound = jnp.finfo(centroids.dtype).max.astype(wide.dtype)
    beside = jnp.minimum(jnp.where(pinned, 0, mean)[split] + spread_each[split], bound)
    moved = jnp.where(unused & (spread[split] > 0), beside, moved)
    return jnp.sort(moved.astype(centroids.dtype))


def _zero(centroids: jax.Array) -> jax.Array:
    """Return the index of the centroid at zero, of several the one in the middle."""
    zeros = centroids == 0
    first, number = jnp.argmax(zeros), jnp.sum(zeros)
    return first + number // 2


def _pin_zero(centroids: jax.Array) -> jax.Array:
    """Set the centroid nearest to zero to exactly zero; the order stays."""
    return centroids.at[jnp.argmin(jnp.abs(centroids))].set(0)


def _sums_by_cluster(
    index: jax.Array, finite: jax.Array, deviations: jax.Array, size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Count the values of each cluster; sum their deviations and the magnitudes of them.

    The sums are taken in parts, because one float32 sum of 2**24 terms drops the last.
    Nothing is flattened, which would gather a leaf that is sharded.
    """
    part = max(_PART, 64 * size)
    parts = max(-(-index.size // part), 1)
    which = flat_index(index.shape, jnp.uint32(0)) // part
    at = which * size + index.astype(jnp.uint32)

    def total(x: jax.Array) -> jax.Array:
        sums = jnp.zeros(parts * size, x.dtype).at[at].add(x)
        return jnp.sum(sums.reshape(parts, size), axis=0)

    return (
        total(finite.astype(jnp.int32)),
        total(deviations),
        total(jnp.abs(deviations)),
    )


def _finite_or_zero(leaf: jax.Array) -> jax.Array:
    wide = lax.stop_gradient(leaf).astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jnp.where(jnp.isfinite(wide), wide, 0)
