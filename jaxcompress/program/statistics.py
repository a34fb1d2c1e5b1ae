# SPDX-License-Identifier: Apache-2.0
"""Statistics of the inputs of products, which merge exactly over any split of the data."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ..numerics.histogram import add, bounds, empty, histogram

__all__ = [
    "Gram",
    "Magnitudes",
    "Moments",
    "Statistic",
    "gram",
    "magnitudes",
    "max_magnitude",
    "moments",
]


@dataclasses.dataclass(frozen=True)
class Statistic:
    """A mergeable summary of input rows, for ``observe`` and ``observing``.

    Law: ``of(rows)`` equals ``merge(of(part), of(rest))`` for any split of the rows, up to
    the rounding of sums, and ``empty`` is neutral. The result is therefore exact over
    micro-batches and shards.

    Attributes:
      empty: ``(groups, features) -> summary`` of no rows.
      of: ``rows -> summary`` of float32 ``(groups, rows, features)``. There is one group,
        except for products batched over parameters and for grouped convolutions.
      merge: ``(summary, summary) -> summary``.
      read: ``(summary, like_leaf) -> result``. ``like_leaf`` arranges an array of shape
        ``(groups, features)`` along the contraction axes of the leaf.
    """

    empty: Callable[[int, int], Any]
    of: Callable[[jax.Array], Any]
    merge: Callable[[Any, Any], Any]
    read: Callable[[Any, Callable[[jax.Array], jax.Array]], Any]


def max_magnitude() -> Statistic:
    """Collect the largest magnitude of every input feature; zero without data."""
    return Statistic(
        empty=lambda groups, features: jnp.zeros((groups, features)),
        of=lambda rows: jnp.max(jnp.abs(rows), 1, initial=0),
        merge=jnp.maximum,
        read=lambda summary, like_leaf: like_leaf(summary),
    )


class Moments(NamedTuple):
    """Mean and variance of every input feature."""

    count: jax.Array  # uint32 ([layers]): rows, up to 2**32
    mean: jax.Array  # float32, broadcasts against the leaf
    var: jax.Array  # float32, likewise; of the population, not of a sample

    @property
    def norm(self) -> jax.Array:
        """Euclidean norm over all rows, the factor in Wanda's score."""
        count = self.count.reshape(
            *self.count.shape, *(1,) * (self.mean.ndim - self.count.ndim)
        )
        return jnp.sqrt(count * (self.var + self.mean**2))


def moments() -> Statistic:
    """Collect the mean and variance of every input feature, as ``Moments``.

    References:
      Chan et al., 1979: the pairwise update, which avoids cancellation.
    """

    def empty(groups: int, features: int) -> Moments:
        zeros = jnp.zeros((groups, features))
        return Moments(jnp.zeros((), jnp.uint32), zeros, zeros)

    def of(rows: jax.Array) -> Moments:
        if not rows.shape[1]:
            return empty(rows.shape[0], rows.shape[2])
        return Moments(jnp.uint32(rows.shape[1]), jnp.mean(rows, 1), jnp.var(rows, 1))

    def merge(a: Moments, b: Moments) -> Moments:
        count = a.count + b.count
        share = b.count / jnp.maximum(count, 1)
        delta = b.mean - a.mean
        var = a.var + (b.var - a.var) * share + delta**2 * share * (1 - share)
        return Moments(count, a.mean + delta * share, var)

    def read(summary: Moments, like_leaf: Callable[..., jax.Array]) -> Moments:
        return Moments(summary.count, like_leaf(summary.mean), like_leaf(summary.var))

    return Statistic(empty, of, merge, read)


class Gram(NamedTuple):
    """Second moments of the input features, not divided by the number of rows."""

    count: jax.Array  # uint32 ([layers]): rows, up to 2**32
    gram: jax.Array  # float32 ([layers,] [groups,] features, features): X^T X
    # float32, broadcasts against the leaf: the sum of squares of every feature. Its shape
    # says along which axes of the leaf the features lie. None if not known.
    squares: jax.Array | None = None


def gram() -> Statistic:
    """Collect ``X^T X`` of the input rows, as ``Gram``, for GPTQ, SparseGPT and OBS.

    Features are in the order of the leaf's contraction axes. For a convolution every
    weight of a filter is a feature, so the matrix is large. There is one matrix per layer
    of a scan, and per group of a grouped convolution.
    """

    def empty(groups: int, features: int) -> Gram:
        zeros = jnp.zeros((groups, features, features))
        return Gram(jnp.zeros((), jnp.uint32), zeros)

    def of(rows: jax.Array) -> Gram:
        # Accelerators multiply float32 at lower precision by default.
        product = jnp.einsum(
            "grf,grh->gfh", rows, rows, precision=lax.Precision.HIGHEST
        )
        return Gram(jnp.uint32(rows.shape[1]), product)

    def merge(a: Gram, b: Gram) -> Gram:
        return Gram(a.count + b.count, a.gram + b.gram)

    def read(summary: Gram, like_leaf: Callable[[jax.Array], jax.Array]) -> Gram:
        matrix = summary.gram
        squares = like_leaf(jnp.diagonal(matrix, axis1=-2, axis2=-1))
        one_group = matrix.shape[-3] == 1
        return Gram(
            summary.count, matrix[..., 0, :, :] if one_group else matrix, squares
        )

    return Statistic(empty, of, merge, read)


class Magnitudes(NamedTuple):
    """A histogram of input values by sign and magnitude."""

    counts: (
        jax.Array
    )  # int32 ([layers,] 2, buckets + 1): negative values, then the rest

    def percentile(self, share: float) -> tuple[jax.Array, jax.Array]:
        """Return the range that leaves out at most ``1 - share`` of values on each side."""

        def of_one(counts: jax.Array) -> tuple[jax.Array, jax.Array]:
            return bounds(counts, share)

        for _ in self.counts.shape[:-2]:
            of_one = jax.vmap(of_one)
        return of_one(self.counts)


def magnitudes() -> Statistic:
    """Collect a histogram of all input values of a leaf in fixed buckets."""

    def of(rows: jax.Array) -> Magnitudes:
        return Magnitudes(histogram(rows))

    return Statistic(
        empty=lambda *_: Magnitudes(empty()),
        of=of,
        merge=lambda a, b: Magnitudes(add(a.counts, b.counts)),
        read=lambda summary, like_leaf: summary,
    )
