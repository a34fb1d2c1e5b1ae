# SPDX-License-Identifier: Apache-2.0
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress import leaves, pack
from jaxcompress.pack._leaf_types import LEAF_TYPES


def test_every_leaf_class_can_be_saved():
    classes = {
        x
        for x in vars(leaves).values()
        if isinstance(x, type) and issubclass(x, leaves.Leaf) and x is not leaves.Leaf
    }
    assert classes == {leaf_type.cls for leaf_type in LEAF_TYPES.values()}


def test_a_class_outside_the_table_is_refused(tmp_path):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Mine(jc.Leaf):
        x: jax.Array

        def dense(self):
            return self.x

        @property
        def shape(self):
            return self.x.shape

        @property
        def dtype(self):
            return np.dtype(self.x.dtype)

    with pytest.raises(
        TypeError, match="leaf 'w': leaves of type Mine cannot be saved"
    ):
        pack.save(tmp_path / "x", {"w": Mine(jnp.ones(2))})


@pytest.mark.parametrize("bitmask", [[0b10100001], [0b10100000, 0]])
def test_a_sparse_array_that_breaks_its_invariants_is_refused(tmp_path, bitmask):
    leaf = jc.SparseArray(
        values=jnp.ones(2), bitmask=jnp.array(bitmask, jnp.uint8), dense_shape=(5,)
    )
    with pytest.raises(ValueError, match="SparseArray.from_dense"):
        pack.save(tmp_path / "x", {"w": leaf})


def test_the_mask_of_a_sparse_array_costs_no_more_than_its_entropy(tmp_path):
    w = normal(300, 300)
    w = jnp.where(jnp.abs(w) > 1.645, jnp.sign(w), 0)
    pack.save(tmp_path / "x", jc.SparseArray.from_dense(w))
    (entry,) = pack.inspect(tmp_path / "x").entries
    p = float(jnp.mean(w != 0))
    bits = w.size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    assert entry.nbytes < bits / 8 + p * w.size / 8 + 64
