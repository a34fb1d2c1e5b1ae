# SPDX-License-Identifier: Apache-2.0
"""Codebook leaves: every weight is an index into a short list of values."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from ._leaf import Leaf, dense


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Codebook(Leaf):
    """Store weights that share a few values: ``dense() == centroids[codes]``.

    Invariants:

    1. ``codes`` has the dense shape and every code is below ``len(centroids)``.
    2. ``centroids`` is sorted and has the dense dtype.

    Attributes:
      codes: uint8 or uint16, of the dense shape, or ``PackedCodes`` thereof.
      centroids: ``(k,)``, of the dense dtype.
    """

    codes: jax.Array | Leaf
    centroids: jax.Array

    def dense(self) -> jax.Array:
        """Return ``centroids[codes]``."""
        return self.centroids[dense(self.codes)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ``codes``."""
        return self.codes.shape

    @property
    def dtype(self) -> np.dtype:
        """Dtype of ``centroids``."""
        return np.dtype(self.centroids.dtype)
