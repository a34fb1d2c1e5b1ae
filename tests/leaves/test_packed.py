# SPDX-License-Identifier: Apache-2.0
"""Codes side by side in a byte."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.leaves import PackedCodes


def same(a, b):
    a, b = np.asarray(a), np.asarray(b)
    assert (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()


def codes_of(bits, dtype, shape, seed):
    draw = np.random.default_rng(seed)
    if dtype == "uint8":
        codes = draw.integers(0, 2**bits, shape)
    elif bits == 1:
        codes = draw.choice([-1, 1], shape)
    else:
        codes = draw.integers(-(2 ** (bits - 1)), 2 ** (bits - 1), shape)
    return codes.astype(dtype)


def reference(codes, bits):
    """Rows of bits in bytes, the first code in the lowest bits; one loop."""
    count = 8 // bits
    rows = codes.reshape(-1, codes.shape[-1]).astype(int)
    if bits == 1 and codes.dtype == np.int8:
        rows = (rows + 1) // 2
    out = np.zeros((len(rows), -(-rows.shape[1] // count)), np.uint8)
    for i, row in enumerate(rows):
        for j, code in enumerate(row):
            out[i, j // count] |= (code % 2**bits) << (bits * (j % count))
    return out.reshape(*codes.shape[:-1], -1)


@hypothesis.given(
    bits=st.sampled_from([1, 2, 4]),
    dtype=st.sampled_from(["int8", "uint8"]),
    shape=st.sampled_from([(1,), (7,), (3, 5), (2, 3, 17), (4, 16), (2, 1)]),
    seed=st.integers(0, 99),
)
@pytest.mark.slow
def test_codes_lie_side_by_side_and_come_back(bits, dtype, shape, seed):
    codes = codes_of(bits, dtype, shape, seed)
    packed = PackedCodes.of(jnp.asarray(codes), bits)
    same(packed.data, reference(codes, bits))
    same(packed.dense(), codes)
    assert packed.shape == shape and packed.dtype == codes.dtype
    assert packed.data.nbytes == np.prod(shape[:-1]) * -(-shape[-1] * bits // 8)
    same(jax.jit(lambda c: PackedCodes.of(c, bits).data)(codes), packed.data)
    same(jax.jit(lambda p: p.dense())(packed), codes)


@pytest.mark.parametrize("shape", [(0,), (0, 4), (3, 0)])
def test_no_codes_at_all(shape):
    codes = jnp.zeros(shape, jnp.int8)
    same(PackedCodes.of(codes, 4).dense(), codes)


@pytest.mark.parametrize(
    ("codes", "bits", "message"),
    [
        (jnp.array([8], jnp.int8), 4, "must fit in 4 bits.*got codes from 8 to 8"),
        (jnp.array([-9, 0], jnp.int8), 4, "must fit in 4 bits"),
        (jnp.array([4], jnp.uint8), 2, "must fit in 2 bits"),
        (jnp.array([-1, 0, 1], jnp.int8), 1, "-1 or 1 for one bit of int8"),
        (jnp.array([0], jnp.int8), 3, "1, 2 or 4 bits .* got bits=3 and int8"),
        (jnp.array([0], jnp.int8), 8, "got bits=8 and int8"),
        (jnp.array([0], jnp.int16), 4, "got bits=4 and int16"),
        (jnp.array([0.0]), 4, "got bits=4 and float32"),
        (jnp.array(1, jnp.int8), 4, "rank 1 or more, got a scalar"),
    ],
)
def test_codes_that_cannot_be_packed_are_refused(codes, bits, message):
    with pytest.raises(ValueError, match=message):
        PackedCodes.of(codes, bits)


W = normal(3, 8, 13)
WAYS = {
    "int4": (
        jc.weight_quantization(
            bits=4, granularity=jc.PerChannel(axes=jc.Axes(outputs=(0, -1)))
        ),
        4,
    ),
    "int3": (
        jc.weight_quantization(
            bits=3, granularity=jc.PerChannel(axes=jc.Axes(outputs=(0, -1)))
        ),
        4,
    ),
    "int2": (
        jc.weight_quantization(
            bits=2, granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        2,
    ),
    "wide": (
        jc.weight_quantization(
            fmt=Int(4, narrow=False), granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        4,
    ),
    "signs": (
        jc.weight_quantization(
            bits=1, granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        1,
    ),
    "uint4": (
        jc.weight_quantization(
            bits=4, symmetric=False, granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        4,
    ),
    "uint1": (
        jc.weight_quantization(
            bits=1, symmetric=False, granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        1,
    ),
    "e2m1": (
        jc.weight_quantization(
            fmt=formats.E2M1, granularity=jc.PerGroup(4, axes=jc.Axes(contraction=1))
        ),
        4,
    ),
    "nf4": (
        jc.weight_quantization(
            fmt=formats.NF4, granularity=jc.PerTensor(axes=jc.Axes(layers=0))
        ),
        4,
    ),
    "three": (
        jc.weight_quantization(
            fmt=formats.Levels((-1, 0, 1)),
            granularity=jc.PerTensor(axes=jc.Axes(layers=0)),
        ),
        2,
    ),
}


@pytest.fixture(params=WAYS)
def leaves(request):
    """A leaf, packed and not, and the bits of a code."""
    c, bits = WAYS[request.param]
    leaf = jc.compress(c, {"kernel": W})["kernel"]
    return leaf, jc.pack_codes(leaf), bits


def test_a_packed_leaf_is_the_leaf_and_an_exact_part_of_its_bytes(leaves):
    leaf, packed, bits = leaves
    assert packed.codes.bits == bits and packed.shape == leaf.shape == W.shape
    assert packed.codes.data.nbytes == 3 * 8 * -(-13 * bits // 8)
    same(packed.dense(), leaf.dense())
    same(jax.jit(jc.dense)(packed), leaf.dense())
    again = jc.pack_codes(packed)
    assert jax.tree.structure(again) == jax.tree.structure(packed)


def test_a_packed_leaf_is_vmapped_and_scanned_over_its_layers(leaves):
    leaf, packed, _ = leaves
    same(jax.vmap(lambda layer: layer.dense())(packed), leaf.dense())
    x = jnp.ones((2, 8))

    def layer(total, w):
        return total + x @ w.dense(), w.dense()

    zero = jnp.zeros((2, 13))
    total, each = jax.jit(lambda p: jax.lax.scan(layer, zero, p))(packed)
    same(each, leaf.dense())
    np.testing.assert_allclose(total, (x @ leaf.dense()).sum(0), rtol=1e-5, atol=1e-5)
    first = jax.tree.map(lambda a: a[0], packed)
    same(first.dense(), leaf.dense()[0])


def test_a_packed_leaf_is_saved_in_files_and_checkpoints(leaves, tmp_path):
    _, packed, _ = leaves
    tree = {"layer": {"kernel": packed}}
    jc.save(tmp_path / "file", tree)
    jc.save_checkpoint(tmp_path / "run", 1, tree)
    like = jax.tree.map(jnp.zeros_like, tree)
    for back in (
        jc.load(tmp_path / "file"),
        jc.restore_checkpoint(tmp_path / "run", like),
    ):
        assert jax.tree.structure(back) == jax.tree.structure(tree)
        jax.tree.map(same, back, tree)


def test_signs_among_which_are_zeros_take_two_bits():
    c, _ = WAYS["signs"]
    leaf = jc.compress(c, {"kernel": W.at[0, 0].set(0)})["kernel"]
    packed = jc.pack_codes(leaf)
    assert packed.codes.bits == 2
    same(packed.dense(), leaf.dense())
    assert jax.jit(jc.pack_codes)(leaf).codes.bits == 2  # not known there
    same(jax.jit(lambda q: jc.pack_codes(q).dense())(leaf), leaf.dense())


def test_wider_codes_and_other_leaves_stay():
    tree = {"bias": jnp.ones(3), "kernel": W[0]}
    for bits in (5, 8, 16):
        c = jc.weight_quantization(bits=bits)
        shipped = jc.compress(c, tree)
        packed = jc.pack_codes(shipped)
        assert jax.tree.structure(packed) == jax.tree.structure(shipped)
    jax.tree.map(same, jc.pack_codes(tree), tree)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 16, 17])
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.uint16])
def test_codebooks_of_few_values_are_packed(size, dtype):
    codes = jnp.arange(24).reshape(4, 6) % size
    leaf = jc.Codebook(codes=codes.astype(dtype), centroids=jnp.arange(size) * 0.5)
    same(jc.pack_codes(leaf).dense(), leaf.dense())


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_a_packed_leaf_is_executed_like_the_leaf(bits):
    w = normal(32, 24, seed=1)
    x = normal(16, 32, seed=2)
    leaf = jc.compress(jc.weight_quantization(bits=bits), {"kernel": w})
    packed = jc.pack_codes(leaf)
    execution = jc.execute(lambda p, x: x @ p["kernel"], pays=lambda site: True)
    assert "int8 x int8" in str(execution.plan(packed, x))
    run = jax.jit(execution.run)
    same(run(packed, x), run(leaf, x))
    np.testing.assert_allclose(
        run(packed, x), x @ leaf["kernel"].dense(), atol=0.05 * float(jnp.abs(x).max())
    )


@pytest.mark.slow
def test_a_packed_leaf_lives_in_a_sharded_program():
    mesh = jax.make_mesh((4,), ("d",))
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("d"))
    codes = jnp.asarray(codes_of(4, "int8", (8, 10), 0))
    packed = PackedCodes.of(codes, 4)
    spread = jax.device_put(packed, rows)
    same(jax.jit(lambda p: p.dense())(spread), codes)
