# SPDX-License-Identifier: Apache-2.0
import functools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import to_qarray

KERNEL = normal(8, 4)


@functools.cache
def nodes():
    return {
        "qarray": to_qarray(KERNEL, Int(4), scale_shape=(2, 4)),
        "asymmetric": to_qarray(KERNEL, Int(4, symmetric=False), scale_shape=(1, 4)),
        "codebook": jc.compress(jc.weight_sharing(5), {"kernel": KERNEL})["kernel"],
        "lowrank": jc.compress(jc.low_rank(rank=2), {"kernel": KERNEL})["kernel"],
        "sparse": jc.SparseArray.from_dense(jnp.where(KERNEL > 1, KERNEL, 0)),
    }


NAMES = ["qarray", "asymmetric", "codebook", "lowrank", "sparse"]


@pytest.mark.parametrize("name", NAMES)
def test_nodes_are_pytrees_that_know_their_dense_value(name):
    node = nodes()[name]
    value = node.dense()
    assert (node.shape, node.dtype) == (value.shape, value.dtype)
    assert (node.ndim, node.size) == (value.ndim, value.size)
    leaves, treedef = jax.tree.flatten(node)
    again = treedef.unflatten(leaves)
    np.testing.assert_array_equal(again.dense(), value)
    jitted = jax.jit(lambda n: n.dense())(node)
    np.testing.assert_allclose(jitted, value, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES[:-1])
def test_nodes_stack_under_vmap_and_scan(name):
    node = nodes()[name]
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), node)
    for dense in (
        jax.vmap(lambda n: n.dense())(stacked),
        jax.lax.scan(lambda carry, n: (carry, n.dense()), 0, stacked)[1],
    ):
        np.testing.assert_allclose(dense[1], node.dense(), rtol=1e-6)


@hypothesis.given(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=3, max_side=6),
        elements=st.one_of(st.just(0.0), st.floats(-4, 4, width=16)),
    )
)
def test_sparse_arrays_restore_what_they_were_made_of(x):
    sparse = jc.SparseArray.from_dense(jnp.asarray(x))
    np.testing.assert_array_equal(sparse.dense(), x)
    assert sparse.values.size == np.count_nonzero(x)
    assert sparse.bitmask.nbytes == -(-x.size // 8)


def test_sparse_arrays_are_not_made_under_jit():
    with pytest.raises(TypeError, match="Call it outside jit"):
        jax.jit(lambda x: jc.SparseArray.from_dense(x).values)(KERNEL)


def test_sparsify_leaves_dense_what_would_not_shrink():
    params = {"a": {"kernel": jnp.eye(64)}, "b": {"kernel": jnp.ones((8, 8))}}
    sparse = jc.sparsify(params)
    assert isinstance(sparse["a"]["kernel"], jc.SparseArray)
    assert sparse["b"]["kernel"] is params["b"]["kernel"]


def test_dense_opens_nested_nodes_and_passes_the_rest():
    thin = jc.factorize({"kernel": KERNEL, "bias": jnp.ones(4)}, rank=2)
    int8 = jc.compress(jc.weight_quantization(bits=8), thin)
    opened = jc.dense(int8)
    assert opened["kernel"].shape == KERNEL.shape
    assert opened["bias"] is thin["bias"]


def test_dense_leaves_a_users_field_called_dense_alone():
    class Module(dict):
        dense = None

    assert jc.leaves._leaf.is_leaf(Module()) is False
