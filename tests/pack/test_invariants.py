# SPDX-License-Identifier: Apache-2.0
"""Leaves that break an invariant are refused, by name, when saved and when loaded."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trees import assert_same

import jaxcompress as jc
from jaxcompress import formats, pack
from jaxcompress.pack import ArtifactError, _leaf_types, _manifest

FLOAT = np.dtype(np.float32)


INT4: formats.Format = formats.Int(4)


def qarray(fmt: formats.Format = INT4, codes=((-7, 7),), **fields):
    return jc.QArray(
        **{
            "codes": jnp.asarray(codes, fmt.dtype),
            "scale": jnp.ones((1, 2)),
            "zero_point": None,
            "format": fmt,
            "value_dtype": FLOAT,
            **fields,
        }
    )


def codebook(codes, centroids):
    return jc.Codebook(
        codes=jnp.asarray(codes, jnp.uint8), centroids=jnp.asarray(centroids)
    )


def packed(data, row):
    return jc.PackedCodes(
        data=jnp.asarray(data, jnp.uint8),
        size_of_row=row,
        bits=4,
        code_dtype=np.dtype(np.int8),
    )


BITS = jc.SparseArray.from_dense(jnp.array([0.0, 1.0, 2.0]))
BROKEN = {
    "a code below": (qarray(codes=((-8, 7),)), "must be from -7 to 7, got -8 to 7"),
    "a code above": (
        qarray(formats.Int(3, symmetric=False), ((0, 8),)),
        "must be from 0 to 7, got 0 to 8",
    ),
    "an index above": (qarray(formats.NF4, ((0, 16),)), "from 0 to 15, got 0 to 16"),
    "a pattern above": (qarray(formats.E2M1, ((0, 16),)), "from 0 to 15"),
    "the dtype of codes": (
        dataclasses.replace(qarray(), codes=jnp.ones((1, 2))),
        "int8 codes, got float32",
    ),
    "tiles": (qarray(scale=jnp.ones((1, 3))), r"scale of a QArray .*divides \(1, 2\)"),
    "the rank of tiles": (qarray(scale=jnp.ones(2)), "scale of a QArray"),
    "the dtype of scales": (qarray(scale=jnp.ones((1, 2), int)), "must be floats"),
    "the zero point": (qarray(zero_point=jnp.ones((1, 1), int)), "zero_point of"),
    "a code of a codebook": (
        codebook([0, 3], [0.0, 1.0, 2.0]),
        "from 0 to 2, got 0 to 3",
    ),
    "order": (codebook([0, 1], [1.0, 0.0]), "centroids of a Codebook must be sorted"),
    "a table": (codebook([0, 0], [[1.0, 2.0]]), "must be a vector"),
    "bytes of a row": (packed([[1, 2]], 2), "rows of 2 codes, got uint8"),
    "the end of a row": (packed([[1, 16]], 3), "must end with zero bits"),
    "the rank": (
        jc.LowRank(left=jnp.ones((3, 2)), right=jnp.ones((4, 2))),
        "the rank of left as its first axis",
    ),
    "values": (
        dataclasses.replace(BITS, values=jnp.ones(3)),
        "one value for each of the 2 bits",
    ),
    "codes in a factor": (
        jc.LowRank(left=qarray(codes=((-8, 0),)), right=jnp.ones((2, 1))),
        "must be from -7 to 7",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_leaves_are_refused(path, monkeypatch, name):
    leaf, message = BROKEN[name]
    with pytest.raises(ValueError, match=f"cannot save leaf 'layer/w': .*{message}"):
        pack.save(path, {"layer": {"w": leaf}})
    with monkeypatch.context() as patch:  # a file of another writer
        patch.setattr(_manifest, "check", lambda leaf: None)
        pack.save(path, {"layer": {"w": leaf}})
    with pytest.raises(ArtifactError, match=f"tensor 'layer/w': .*{message}"):
        pack.load(path)
    assert _leaf_types.name_of(leaf)


def test_stacked_leaves_are_whole(path):
    leaves = {
        "q": qarray(),
        "c": codebook([[0, 1], [1, 0]], [0.0, 1.0]),
        "p": packed([[1, 2]], 4),
        "l": jc.LowRank(left=jnp.ones((3, 2)), right=jnp.ones((2, 4))),
    }
    stacked = jax.tree.map(lambda x: jnp.stack([x, x]), leaves)
    pack.save(path, stacked)
    assert_same(pack.load(path), stacked)


def test_an_uncalibrated_scale_is_no_damage(path):
    tree = {"w": qarray(scale=jnp.full((1, 2), jnp.nan))}
    pack.save(path, tree)
    assert_same(pack.load(path), tree)


def test_arrays_of_several_processes_are_named():
    class Remote:
        """Looks like an array whose other half another process holds."""

        is_fully_addressable = is_fully_replicated = False
        sharding = "NamedSharding(...)"

    with pytest.raises(ValueError, match="other processes.*process_allgather"):
        _manifest._check_reach(Remote())  # pyright: ignore[reportArgumentType]
