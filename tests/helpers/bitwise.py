# SPDX-License-Identifier: Apache-2.0
"""Equality to the bit, of arrays and of trees."""

import jax
import numpy as np


def same(a, b):
    """Equal dtypes, shapes and bits."""
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    if a.tobytes() != b.tobytes():
        np.testing.assert_array_equal(a.astype(np.float64), b.astype(np.float64))
        raise AssertionError(f"equal values of other bits (zeros of two signs?): {a}")


def same_tree(a, b):
    """The same of trees; static fields are part of their structure."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(same, a, b)
