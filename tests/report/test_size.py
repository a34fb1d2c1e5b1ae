# SPDX-License-Identifier: Apache-2.0
import dataclasses
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from flax.core import FrozenDict

import jaxcompress as jc
from jaxcompress import pack, report


@functools.cache
def model():
    w = normal(300, 200)
    small = jc.chain(jc.magnitude_pruning(0.9), jc.weight_quantization(bits=4))
    return jc.compress(small, {"kernel": w, "bias": jnp.ones(200)})


def test_reported_bytes_are_those_of_the_file(tmp_path):
    tree = model()
    path = tmp_path / "net.safetensors"
    pack.save(path, tree)
    size = report.size(path)
    assert size.file_bytes == os.stat(path).st_size
    assert size.payload_bytes + size.overhead_bytes == size.file_bytes
    assert size == report.size(path, expected=tree) == report.size(tree)


def test_counts_against_numpy():
    tree = model()
    size = report.size(tree)
    arrays = list(map(np.asarray, jax.tree.leaves(jc.dense(tree))))
    assert size.params == sum(x.size for x in arrays) == 60_200
    assert size.nonzeros == sum(np.count_nonzero(x) for x in arrays)
    assert (
        size.float32_bytes == sum(x.nbytes for x in arrays) == 2 * size.bfloat16_bytes
    )
    bias, kernel = size.leaves
    assert (bias.path, bias.kind, bias.shape) == ("bias", "array", (200,))
    assert (kernel.path, kernel.kind, kernel.shape) == ("kernel", "QArray", (300, 200))
    assert size.bits_per_weight == 8 * kernel.nbytes / 60_000
    assert size.bits_per_param == 8 * size.file_bytes / 60_200


def test_payload_is_within_a_few_per_cent_of_the_bound():
    kernel = report.size(model()).leaves[1]
    # Below it by the exponents of the scales, above it by the table of symbols.
    assert 0.9 * kernel.bound_bytes < kernel.nbytes < 1.02 * kernel.bound_bytes


def test_a_file_with_another_tree_is_told(tmp_path):
    path = tmp_path / "net"
    pack.save(path, model())
    moved = model() | {"bias": jnp.ones(200).at[3].set(2.0)}
    with pytest.raises(ValueError, match="does not hold the expected tree"):
        report.size(path, expected=moved)
    with pytest.raises(ValueError, match="does not hold the expected tree"):
        report.size(path, expected=jc.dense(model()))
    kernel = dataclasses.replace(model()["kernel"], format=jc.formats.Int(5))
    with pytest.raises(ValueError, match="does not hold the expected tree"):
        report.size(path, expected=model() | {"kernel": kernel})
    assert report.size(path, expected=FrozenDict(model()))


def test_nothing_has_no_bits_a_parameter():
    size = report.size({})
    assert (size.params, size.bits_per_param, size.bits_per_weight) == (0, None, None)


def test_a_size_prints_as_a_table():
    size = report.size(model())
    lines = str(size).splitlines()
    assert max(map(len, lines)) <= 100
    kernel = next(line.split() for line in lines if line.startswith("kernel"))
    leaf = size.leaves[1]
    assert kernel == [
        *("kernel", "QArray", "int4", "300x200", f"{leaf.nonzeros / 60_000:.3f}"),
        *(
            f"{8 * leaf.nbytes / 60_000:.3f}",
            f"{leaf.nbytes:,}",
            f"{leaf.bound_bytes:,.0f}",
        ),
    ]
    assert str(report.size({}))


@pytest.mark.parametrize(
    ("leaf", "fmt"),
    [
        (jnp.ones(3, jnp.bfloat16), "bfloat16"),
        (jc.Codebook(codes=jnp.zeros(4, jnp.uint8), centroids=jnp.ones(3)), "3 values"),
        (jc.LowRank(left=jnp.ones((8, 2)), right=jnp.ones((2, 8))), "rank 2, float32"),
        (jc.SparseArray.from_dense(jnp.ones(9)), "float32 and mask"),
    ],
)
def test_formats_are_named(leaf, fmt):
    assert report.size({"w": leaf}).leaves[0].fmt == fmt
