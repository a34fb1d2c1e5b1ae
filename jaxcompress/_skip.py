# SPDX-License-Identifier: Apache-2.0
"""What the optimizer skips, the compressor skips: a batch that is not finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from ._mesh import on_any_mesh
from ._types import PyTree


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether every float in a tree is finite: bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return on_any_mesh(_all_finite)(leaves)


def _all_finite(leaves: list[jax.Array]) -> jax.Array:
    if not leaves:
        return jnp.ones((), bool)
    bad = jnp.stack([~jnp.isfinite(_small_sums(x)).all() for x in leaves])
    # A product, since XLA would compute `any` again in every leaf that depends on it: a
    # chain over all leaves for each leaf, most of the time that a large step compiles for.
    return lax.dot(jnp.ones(len(leaves), jnp.float32), bad.astype(jnp.float32)) == 0


def _small_sums(x: jax.Array) -> jax.Array:
    """Return sums over all axes but the last that are finite if and only if ``x`` is.

    A matrix product is several times as fast as a test of each element. Its other factor
    is so small that finite numbers do not overflow, and so large that few are subnormal.
    """
    if x.ndim < 2:
        return x
    axes = tuple(range(x.ndim - 1))
    small = jnp.full(x.shape[:-1], jnp.finfo(x.dtype).tiny ** 0.5, x.dtype)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return lax.dot_general(
        small, x, ((axes, axes), ((), ())), preferred_element_type=wide
    )


def keep_unless(finite: jax.Array, new: PyTree, old: PyTree) -> PyTree:
    """Return the new state; after a batch that was not finite, the old one.

    Optimizers such as ``optax.apply_if_finite``, and loops that scale their loss, skip such
    a batch: the parameters survive it. A running statistic that took it in would stay NaN.

    Args:
      finite: bool [].
      new: state after the batch.
      old: state before it, with the same structure, or one that ``new`` replaces whole.
    """
    if jax.tree.structure(new) != jax.tree.structure(old):
        return new
    return jax.tree.map(lambda a, b: a if a is b else jnp.where(finite, a, b), new, old)
