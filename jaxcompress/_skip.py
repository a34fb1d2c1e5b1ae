# SPDX-License-Identifier: Apache-2.0
"""What the optimizer skips, the compressor skips: a batch that is not finite."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ._types import PyTree


def all_finite(tree: PyTree) -> jax.Array:
    """Return whether every float in a tree is finite: bool []."""
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    finite = [jnp.isfinite(x).all() for x in leaves]
    return jnp.stack(finite).all() if finite else jnp.ones((), bool)


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
