# SPDX-License-Identifier: Apache-2.0
"""Entropy: the bytes below which no coder comes that looks at one element at a time."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..leaves import Leaf, SparseArray


def code_entropy(array: Any) -> float:
    """Order-0 empirical entropy of an array, in bits an element.

    What a coder that knows only how often each value occurs needs on average, without
    the table of values. Values are told apart by their bits: -0.0 is not 0.0.

    Args:
      array: of any shape and dtype; that of an empty one is 0.

    References:
      Shannon, 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01338.x

    Example:
      >>> import numpy as np
      >>> code_entropy(np.array([0, 0, 1, 2]))
      1.5
    """
    array = np.ascontiguousarray(array)
    if array.size == 0:
        return 0.0
    _, counts = np.unique(array.view(f"u{array.itemsize}"), return_counts=True)
    share = counts / counts.sum()
    return abs(float(-(share * np.log2(share)).sum()))  # abs: a lone value gives -0.0


def bound_bytes(leaf: Any) -> float:
    """Bytes that coding each element of a leaf by its own frequency would take.

    Integers (codes, zero points) count with their order-0 entropy. Floats (scales,
    centroids, biases, sparse values) count raw, but for zeros, which count with the
    entropy of the mask. Tables of values are not counted, so an order-0 coder ends a
    little above this bound; one that sees rows, columns or exponents can end below.

    Args:
      leaf: an array or a compressed leaf.
    """
    if isinstance(leaf, SparseArray):
        mask = np.unpackbits(np.asarray(leaf.bitmask), count=leaf.size)
        return code_entropy(mask) * leaf.size / 8 + leaf.values.nbytes
    if isinstance(leaf, Leaf):
        children = jax.tree.leaves(
            leaf, is_leaf=lambda x: x is not leaf and isinstance(x, Leaf)
        )
        return math.fsum(map(bound_bytes, children))
    array = np.asarray(leaf)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        return code_entropy(array) * array.size / 8
    kept = array != 0
    masked = (
        code_entropy(kept) * kept.size / 8 + np.count_nonzero(kept) * array.itemsize
    )
    return float(min(masked, array.nbytes))
