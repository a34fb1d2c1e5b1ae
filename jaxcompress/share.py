# SPDX-License-Identifier: Apache-2.0
"""Weight sharing: k-means clustering of the weights of each leaf."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._combine import masked
from ._compressor import Compressor, PyTree
from ._select import Where, is_weight
from ._signatures import name_defaults
from .leaves import Codebook
from .numerics import ste

__all__ = [
    "ShareState",
    "share",
    "weight_sharing",
]


class ShareState(NamedTuple):
    """State of weight sharing."""

    count: jax.Array  # int32 []: updates so far
    centroids: PyTree  # (clusters,) per leaf, sorted, of the leaf's dtype


def share(
    clusters: int, *, keep_zero: bool = True, every: int = 1, iterations: int = 20
) -> Compressor:
    """Cluster the weights of every leaf; ``weight_sharing`` adds a selection of leaves.

    See ``weight_sharing`` for the arguments.
    """
    if not 2 <= clusters <= 65536:
        raise ValueError(f"clusters must be 2 to 65536 values, got {clusters}.")
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got {every}.")

    def init(params: PyTree) -> ShareState:
        def fit(leaf: jax.Array) -> jax.Array:
            return _k_means(leaf, clusters, keep_zero, iterations)

        return ShareState(jnp.zeros((), jnp.int32), jax.tree.map(fit, params))

    def apply(params: PyTree, state: ShareState) -> PyTree:
        return jax.tree.map(
            lambda p, c: ste(p, c[_nearest(p, c)]), params, state.centroids
        )

    def update(
        params: PyTree, state: ShareState, **extras: Any
    ) -> tuple[PyTree, ShareState]:
        del extras
        count = state.count + 1
        centroids = lax.cond(
            count % every == 0,
            lambda: jax.tree.map(
                lambda p, c: _lloyd(p, c, keep_zero), params, state.centroids
            ),
            lambda: state.centroids,
        )
        return params, ShareState(count, centroids)

    def finalize(params: PyTree, state: ShareState) -> PyTree:
        dtype = jnp.uint8 if clusters <= 256 else jnp.uint16
        return jax.tree.map(
            lambda p, c: Codebook(codes=_nearest(p, c).astype(dtype), centroids=c),
            params,
            state.centroids,
        )

    return Compressor(init=init, apply=apply, update=update, finalize=finalize)


@name_defaults
def weight_sharing(
    clusters: int,
    *,
    keep_zero: bool = True,
    every: int = 1,
    iterations: int = 20,
    where: Where = is_weight,
) -> Compressor:
    """Cluster weights with k-means: each weight becomes the nearest centroid of its leaf.

    ``init`` finds the centroids. In training, gradients pass straight through to the
    weights, and ``update`` moves each centroid to the mean of its weights. ``finalize``
    returns ``Codebook`` leaves.

    Args:
      clusters: number of values per leaf, 2 to 65536; ``2**b`` values cost b bits per
        weight.
      keep_zero: True pins one centroid to exactly zero, so pruned weights stay zero.
      every: updates between two moves of the centroids.
      iterations: iterations of k-means in ``init``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if ``clusters`` or ``every`` is out of range; in ``init``, if ``where``
        selects nothing.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
      >>> shared = jc.compress(jc.weight_sharing(16), params)["kernel"]
      >>> len(jnp.unique(shared.dense()))
      16

    References:
      Han et al., 2015, https://arxiv.org/abs/1510.00149
    """
    sharing = share(clusters, keep_zero=keep_zero, every=every, iterations=iterations)
    return masked(sharing, where)


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _k_means(
    leaf: jax.Array, clusters: int, keep_zero: bool, iterations: int
) -> jax.Array:
    start = _spread(leaf, clusters, keep_zero)
    return lax.fori_loop(0, iterations, lambda _, c: _lloyd(leaf, c, keep_zero), start)


def _spread(leaf: jax.Array, clusters: int, keep_zero: bool) -> jax.Array:
    """Space centroids evenly over the range, which keeps rare, important large weights."""
    low, high = leaf.min(), leaf.max()
    centroids = low + (high - low) * jnp.linspace(0, 1, clusters, dtype=leaf.dtype)
    return _pin_zero(centroids) if keep_zero else centroids


def _pin_zero(centroids: jax.Array) -> jax.Array:
    """Set the centroid nearest to zero to exactly zero; the order stays."""
    nearest = jnp.argmin(jnp.abs(centroids))
    return centroids.at[nearest].set(0)


def _nearest(leaf: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the index of the nearest centroid, by a sum of comparisons that XLA fuses."""
    leaf = lax.stop_gradient(leaf)
    midpoints = (centroids[1:] + centroids[:-1]) / 2
    # A weight equal to a centroid (zero!) gets it, even if rounding put a midpoint there.
    index = jnp.searchsorted(midpoints, leaf, method="compare_all")
    exact = jnp.searchsorted(centroids, leaf, method="compare_all")
    exact = jnp.minimum(exact, len(centroids) - 1)
    return jnp.where(centroids[exact] == leaf, exact, index)


def _lloyd(leaf: jax.Array, centroids: jax.Array, keep_zero: bool) -> jax.Array:
    """Move each centroid to the mean of its weights; empty centroids stay."""
    index, size = _nearest(leaf, centroids).ravel(), len(centroids)
    wide = leaf.ravel().astype(jnp.promote_types(leaf.dtype, jnp.float32))
    total = jax.ops.segment_sum(wide, index, size)
    counts = jax.ops.segment_sum(jnp.ones_like(wide), index, size)
    mean = (total / jnp.maximum(counts, 1)).astype(leaf.dtype)
    moved = jnp.sort(jnp.where(counts > 0, mean, centroids))
    return _pin_zero(moved) if keep_zero else moved
