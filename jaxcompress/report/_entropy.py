# SPDX-License-Identifier: Apache-2.0
"""Entropy: a lower bound on the bytes of any coder that codes one element at a time."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..leaves import Leaf, SparseArray


def code_entropy(array: Any) -> float:
    """Compute the order-0 empirical entropy of an array, in bits per element.

    This is the average cost for a coder that knows only how often each value occurs,
    without the table of values. Values are compared by their bits: -0.0 is not 0.0.

    Args:
      array: array of any shape and dtype. An empty array has entropy 0.

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
    shares = counts / counts.sum()
    # abs, because a single distinct value gives -0.0.
    return abs(float(-(shares * np.log2(shares)).sum()))


def bound_bytes(leaf: Any) -> float:
    """Bound how far entropy coding could shrink a leaf: its order-0 bound in bytes.

    Integers (codes, zero points) cost their order-0 entropy. Floats (scales, centroids,
    biases, sparse values) cost their raw size, except zeros, which cost the entropy of
    the mask. Tables of values are not counted, so an order-0 coder needs slightly more
    than this bound. A coder that exploits rows, columns or exponents can need less.

    Args:
      leaf: array or compressed leaf.
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
    mask = array != 0
    sparse_bytes = (
        code_entropy(mask) * mask.size / 8 + np.count_nonzero(mask) * array.itemsize
    )
    return float(min(sparse_bytes, array.nbytes))
