# SPDX-License-Identifier: Apache-2.0
"""Weight sharing: k-means clustering of the weights of each leaf."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._arguments import check_counts, check_flags, check_whole
from ._combine import masked
from ._compressor import Compressor, PyTree
from ._origin import Origin, check_origin, make_origin
from ._refuse import refuse_not_finite, refuse_unfit
from ._select import Where, is_weight, map_with_path
from ._signatures import name_defaults
from .leaves import Codebook
from .numerics import (
    cond,
    find_clusters,
    move_clusters,
    nearest_cluster,
    one_program,
    ste,
)

__all__ = [
    "ShareState",
    "share",
    "weight_sharing",
]


class ShareState(NamedTuple):
    """State of weight sharing."""

    count: jax.Array  # int32 []: updates so far
    centroids: PyTree  # (clusters,) per leaf, sorted, of the leaf's dtype
    origin: Origin  # whether one of the centroids is held at zero


def share(
    clusters: int,
    *,
    keep_zero: bool = True,
    every: int = 1,
    iterations: int = 20,
    revive: bool = True,
) -> Compressor:
    """Cluster the weights of every leaf; ``weight_sharing`` adds a selection of leaves.

    See ``weight_sharing`` for the arguments.
    """
    check_whole(clusters=clusters, every=every)
    check_counts(0, iterations=iterations)
    check_flags(keep_zero=keep_zero, revive=revive)
    if not 2 <= clusters <= 65536:
        raise ValueError(f"clusters must be 2 to 65536 values, got {clusters}.")
    if every < 1:
        raise ValueError(f"every must be at least 1 update, got {every}.")

    maker = "weight_sharing" if keep_zero else "weight_sharing_without_zero"

    def check(params: PyTree, state: ShareState) -> None:
        check_origin(state.origin, maker)
        _check_clusters(params, state, clusters)

    def init(params: PyTree) -> ShareState:
        refuse_unfit(params)
        centroids = jax.tree.map(
            lambda p: find_clusters(p, clusters, keep_zero, iterations), params
        )
        return ShareState(jnp.zeros((), jnp.int32), centroids, make_origin(maker))

    def apply(params: PyTree, state: ShareState) -> PyTree:
        check(params, state)
        return jax.tree.map(_view, params, state.centroids)

    def update(
        params: PyTree, state: ShareState, **extras: Any
    ) -> tuple[PyTree, ShareState]:
        del extras
        check(params, state)
        refuse_not_finite(params)
        count = state.count + 1
        centroids = cond(
            count % every == 0,
            lambda: jax.tree.map(
                lambda p, c: move_clusters(p, c, keep_zero, revive),
                params,
                state.centroids,
            ),
            lambda: state.centroids,
        )
        return params, ShareState(count, centroids, state.origin)

    def finalize(params: PyTree, state: ShareState) -> PyTree:
        check(params, state)
        refuse_unfit(params)
        dtype = jnp.uint8 if clusters <= 256 else jnp.uint16
        return jax.tree.map(
            lambda p, c: Codebook(
                codes=nearest_cluster(p, c).astype(dtype), centroids=c
            ),
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
    revive: bool = True,
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
      revive: whether ``update`` moves a centroid that has no weights to where the error is
        largest; if not, it stays where it is.
      where: which leaves: a glob, ``(path, leaf) -> bool`` or a bool tree.

    Raises:
      ValueError: if ``clusters`` or ``every`` is out of range; in ``init``, if ``where``
        selects nothing, or a leaf is empty; later, if the state belongs to another number
        of clusters; outside of jit, if a leaf has NaN or infinite values.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"kernel": jax.random.normal(jax.random.key(0), (64, 64))}
      >>> shared = jc.compress(jc.weight_sharing(16), params)["kernel"]
      >>> len(jnp.unique(shared.dense()))
      16

    References:
      Han et al., 2015, https://arxiv.org/abs/1510.00149
    """
    sharing = share(
        clusters,
        keep_zero=keep_zero,
        every=every,
        iterations=iterations,
        revive=revive,
    )
    return masked(sharing, where)


@one_program()
def _view(leaf: jax.Array, centroids: jax.Array) -> jax.Array:
    value = centroids[nearest_cluster(leaf, centroids)]
    # NaN and infinity have no centroid: they stay visible.
    return ste(leaf, jnp.where(jnp.isfinite(leaf), value, leaf))


def _check_clusters(params: PyTree, state: ShareState, clusters: int) -> None:
    def check(path: str, leaf: jax.Array, centroids: jax.Array) -> None:
        del leaf
        if centroids.shape != (clusters,):
            raise ValueError(
                f"the state must come from weight_sharing({clusters}), got centroids of "
                f"shape {centroids.shape} for {path!r}. Make it with this compressor's "
                "init."
            )

    map_with_path(check, params, state.centroids)
