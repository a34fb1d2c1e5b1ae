# SPDX-License-Identifier: Apache-2.0
"""Weight sharing: every weight of a leaf is one of a few values, found by k-means."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ._combine import masked
from ._compressor import Compressor, PyTree
from ._select import Where, is_weight
from .leaves import Codebook
from .numerics import ste


class ShareState(NamedTuple):
    """State of weight sharing."""

    count: jax.Array  # int32 []: updates so far
    centroids: PyTree  # (clusters,) a leaf, sorted, of the leaf's dtype


def share(
    clusters: int, *, keep_zero: bool = True, every: int = 1, iterations: int = 20
) -> Compressor:
    """Replace every weight by the nearest of ``clusters`` shared values, in every leaf.

    See ``weight_sharing`` for the arguments.
    """
    if not 2 <= clusters <= 65536:
        raise ValueError(f"clusters={clusters}: 2 to 65536 values can be shared.")
    if every < 1:
        raise ValueError(f"every={every}: centroids move every 1 or more updates.")

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


def weight_sharing(
    clusters: int,
    *,
    keep_zero: bool = True,
    every: int = 1,
    iterations: int = 20,
    where: Where = is_weight,
) -> Compressor:
    """Share values: each weight becomes the nearest centroid of its leaf.

    Centroids are found by k-means in ``init``; in training, gradients pass straight
    through to the weights and ``update`` moves each centroid to the mean of its weights.
    ``finalize`` gives ``Codebook`` leaves.

    Args:
      clusters: values a leaf, 2 to 65536; ``2**b`` cost b bits a weight.
      keep_zero: pin one centroid to exactly zero, so that pruned weights stay zero.
      every: updates between two moves of the centroids.
      iterations: of k-means in ``init``.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: for unsupported ``clusters`` or ``every``; and in ``init``, if
        ``where`` selects nothing.

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
    """Evenly spaced over the range: it keeps the rare large weights, which matter most."""
    low, high = leaf.min(), leaf.max()
    centroids = low + (high - low) * jnp.linspace(0, 1, clusters, dtype=leaf.dtype)
    return _pin_zero(centroids) if keep_zero else centroids


def _pin_zero(centroids: jax.Array) -> jax.Array:
    """Set the centroid nearest to zero to exactly zero; the order is kept."""
    nearest = jnp.argmin(jnp.abs(centroids))
    return centroids.at[nearest].set(0)


def _nearest(leaf: jax.Array, centroids: jax.Array) -> jax.Array:
    """Index of the nearest centroid; a sum of comparisons, which fuses."""
    leaf = lax.stop_gradient(leaf)
    middles = (centroids[1:] + centroids[:-1]) / 2
    # Zero goes to an exact zero even where rounding has put a middle on top of it.
    index = jnp.searchsorted(middles, leaf, method="compare_all")
    exact = jnp.searchsorted(centroids, leaf, method="compare_all")
    exact = jnp.minimum(exact, len(centroids) - 1)
    return jnp.where(centroids[exact] == leaf, exact, index)


def _lloyd(leaf: jax.Array, centroids: jax.Array, keep_zero: bool) -> jax.Array:
    """Each centroid to the mean of its weights; an empty one stays where it is."""
    index, size = _nearest(leaf, centroids).ravel(), len(centroids)
    wide = leaf.ravel().astype(jnp.promote_types(leaf.dtype, jnp.float32))
    total = jax.ops.segment_sum(wide, index, size)
    number = jax.ops.segment_sum(jnp.ones_like(wide), index, size)
    mean = (total / jnp.maximum(number, 1)).astype(leaf.dtype)
    moved = jnp.sort(jnp.where(number > 0, mean, centroids))
    return _pin_zero(moved) if keep_zero else moved
