# SPDX-License-Identifier: Apache-2.0
"""Low-rank leaves: a matrix stored as the product of two thin ones."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from ._leaf import Leaf, dense


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(Leaf):
    """Store a factorized array: ``dense() == tensordot(left, right, 1)``.

    Invariants:

    1. The last dimension of ``left`` and the first of ``right`` are the rank.
    2. Both factors are ordinary leaves with paths of their own (``.../left`` and
       ``.../right``), so they can be trained, pruned and quantized themselves.

    Attributes:
      left: ``(*rows, rank)``, of the dense dtype.
      right: ``(rank, *columns)``, of the dense dtype.
    """

    left: jax.Array | Leaf
    right: jax.Array | Leaf

    def dense(self) -> jax.Array:
        """Multiply the factors; all dimensions but the rank are kept."""
        left, right = dense((self.left, self.right))
        return jnp.tensordot(left, right, 1)

    @property
    def rank(self) -> int:
        """Number of columns of ``left``."""
        return self.left.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the product."""
        return (*self.left.shape[:-1], *self.right.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the factors."""
        return np.dtype(self.left.dtype)
