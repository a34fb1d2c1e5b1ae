# SPDX-License-Identifier: Apache-2.0
"""The tree in `version_1.safetensors`, which the first format wrote: every kind of leaf."""

import jax.numpy as jnp
import numpy as np

import jaxcompress as jc
from jaxcompress.formats import Int


def tree():
    """Whole numbers and halves, which no version of a library rounds otherwise."""
    codes = np.arange(60).reshape(6, 10) * 7 % 15 - 7
    codes = np.where(codes % 2, 0, codes).astype(np.int8)
    int4 = jc.QArray(
        codes=jnp.asarray(codes),
        scale=jnp.full((6, 1), 0.5),
        zero_point=None,
        format=Int(4),
        value_dtype=np.dtype(np.float32),
    )
    return {
        "Dense_0": {"kernel": int4, "bias": jnp.arange(10.0)},
        "a/b": jnp.ones(1),
        "a": {"b": jnp.zeros(1)},
        "codebook": jc.Codebook(
            codes=jnp.asarray(codes % 4, jnp.uint8), centroids=jnp.arange(4) / 2
        ),
        "low rank": jc.LowRank(left=jnp.ones((3, 2)), right=jnp.ones((2, 4))),
        "packed": jc.pack_codes({"w": int4})["w"],
        "sparse": jc.SparseArray.from_dense(jnp.asarray(codes, jnp.bfloat16)),
        "rest": [None, (jnp.arange(300) % 3 == 0, jnp.zeros((0, 3)))],
    }
