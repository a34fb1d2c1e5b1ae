# SPDX-License-Identifier: Apache-2.0
"""A small tree of compressed leaves, and what it means that a tree came back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from draws import normal

import jaxcompress as jc


def assert_same(tree, expected):
    """Same structure, static fields, dtypes, shapes, bits; every leaf a JAX array."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@functools.cache
def small_tree():
    w = normal(24, 10)
    small = jc.chain(jc.magnitude_pruning(0.7), jc.weight_quantization(bits=4))
    leaf = jc.compress(small, {"kernel": w})["kernel"]
    return {"Dense_0": {"bias": jnp.arange(3.0), "kernel": leaf}, "rest": [None, (w,)]}
