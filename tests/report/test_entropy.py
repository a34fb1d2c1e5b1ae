# SPDX-License-Identifier: Apache-2.0
from typing import Any

import hypothesis.extra.numpy as hnp
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

import jaxcompress as jc
from jaxcompress.report import bound_bytes, code_entropy


@given(hnp.arrays(np.int8, st.integers(1, 50), elements=st.integers(-3, 3)))
def test_entropy_against_its_definition(array):
    p = [np.mean(array == value) for value in set(array.tolist())]
    assert code_entropy(array) == pytest.approx(
        -sum(q * np.log2(q) for q in p), abs=1e-12
    )


def test_entropy_of_special_arrays():
    assert code_entropy(jnp.zeros(0)) == 0
    assert code_entropy(jnp.ones((4, 4), jnp.bfloat16)) == 0
    assert code_entropy(np.array([0.0, -0.0])) == 1
    assert code_entropy(np.arange(256, dtype=np.uint8)) == 8


def test_bounds_by_hand():
    mask = np.array([1, 0, 0, 0] * 8, bool)
    mask_bytes = 32 * (0.25 * 2 + 0.75 * np.log2(4 / 3)) / 8
    floats = np.where(mask, 1.5, 0).astype(np.float32)
    assert bound_bytes(np.ones(8, np.float32)) == 32
    assert bound_bytes(floats) == pytest.approx(mask_bytes + 8 * 4)
    assert bound_bytes(jc.SparseArray.from_dense(jnp.asarray(floats))) == pytest.approx(
        mask_bytes + 8 * 4
    )
    codebook = jc.Codebook(
        codes=jnp.asarray(mask, jnp.uint8), centroids=jnp.array([1.0, 2.0])
    )
    assert bound_bytes(codebook) == pytest.approx(mask_bytes + 8)
    nested: Any = codebook
    factors = jc.LowRank(left=jnp.ones((8, 1)), right=nested)
    assert bound_bytes(factors) == pytest.approx(32 + mask_bytes + 8)
