# SPDX-License-Identifier: Apache-2.0
"""What compressed leaves, masks and quantized activations change in a count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, count, everywhere
from jaxcompress.quantize import to_qarray

KERNEL = normal(16, 8)
X = jax.ShapeDtypeStruct((4, 16), jnp.float32)
MACS = 4 * 16 * 8


def product(params, x):
    return x @ params["kernel"]


def shared(values):
    return jc.compress(jc.weight_sharing(values), {"kernel": KERNEL})["kernel"]


LEAVES = {
    "float32": lambda: (KERNEL, 32),
    "bfloat16": lambda: (KERNEL.astype(jnp.bfloat16), 16),
    "4 bits": lambda: (to_qarray(KERNEL, Int(4), scale_shape=(1, 8)), 4),
    "16 bits": lambda: (to_qarray(KERNEL, Int(16, False), scale_shape=(4, 8)), 16),
    "4 values": lambda: (shared(4), 2),
    "5 values": lambda: (shared(5), 3),
    "the non-zeros": lambda: (jc.SparseArray.from_dense(jnp.maximum(KERNEL, 0)), 32),
    "two factors": lambda: (
        jc.compress(jc.low_rank(rank=2), {"kernel": KERNEL})["kernel"],
        32,
    ),
}


@pytest.mark.parametrize("name", LEAVES)
def test_leaves_declare_their_bits(name):
    leaf, bits = LEAVES[name]()
    x = jax.ShapeDtypeStruct(X.shape, leaf.dtype)
    counted = count(product, {"kernel": leaf}, x)
    (site,) = counted.sites
    own = 16 if leaf.dtype == jnp.bfloat16 else 32
    density = np.count_nonzero(jc.dense(leaf)) / KERNEL.size
    assert site.bits == (bits, own) and site.macs == MACS
    assert site.density == density
    assert site.effective_macs == counted.effective_macs == MACS * density
    assert site.bit_ops == counted.bit_ops == MACS * density * bits * own
    assert site.activation_bytes == (4 * 16 + 4 * 8) * own / 8
    if name != "two factors":
        assert site.weight_bytes == KERNEL.size * density * bits / 8


@pytest.mark.parametrize("name", LEAVES)
def test_shapes_of_leaves_do_where_zeros_do_not_matter(name):
    leaf, bits = LEAVES[name]()
    shapes = jax.eval_shape(lambda: {"kernel": leaf})
    x = jax.ShapeDtypeStruct(X.shape, leaf.dtype)
    (site,) = count(product, shapes, x).sites
    (concrete,) = count(product, {"kernel": leaf}, x).sites
    assert (site.macs, site.bits) == (concrete.macs, concrete.bits)
    assert site.density == 1  # as far as a shape tells


def test_weights_come_first_whichever_side_they_are_on():
    def left(params, x):
        return params["kernel"].T @ x.T

    params = {"kernel": LEAVES["4 bits"]()[0]}
    for fn in (product, left):
        (site,) = count(fn, params, X).sites
        assert site.bits == (4, 32) and site.macs == MACS


def test_a_mask_saves_effective_work_and_no_work():
    seen = []
    for sparsity in (0.0, 0.5, 0.75):
        params = jc.compress(jc.magnitude_pruning(sparsity), {"kernel": KERNEL})
        (site,) = count(product, params, X).sites
        kept = 1 - sparsity
        assert site.macs == MACS and site.density == kept
        assert site.effective_macs == MACS * kept
        assert site.bit_ops == MACS * kept * 32 * 32
        assert site.weight_bytes == KERNEL.size * kept * 4
        assert f"{kept:.3f}" in str(count(product, params, X))
        seen.append(site.activation_bytes)
    assert len(set(seen)) == 1


def test_a_leaf_of_zeros_takes_no_work_and_an_empty_one_none_either():
    (site,) = count(product, {"kernel": jnp.zeros((16, 8))}, X).sites
    assert (site.density, site.bit_ops, site.weight_bytes) == (0, 0, 0)
    (site,) = count(product, {"kernel": jnp.zeros((16, 0))}, X).sites
    assert (site.macs, site.weight_bytes) == (0, 0)


def network(params, x):
    x = jax.nn.relu(x @ params["first"])
    return (x @ x.T) @ (x @ params["last"])


NETWORK = {
    "first": to_qarray(KERNEL, Int(4), scale_shape=(1, 8)),
    "last": normal(8, 8, seed=1),
}


def activation_bits(policy):
    """Of each product: bits of its two operands, and bytes moved beside weights."""
    sites = count(network, NETWORK, X, policy=policy).sites
    return [(s.bits, s.activation_bytes) for s in sites]


def test_without_a_policy_activations_have_the_bits_of_their_dtype():
    assert activation_bits(None) == [
        ((4, 32), 4 * (4 * 16 + 4 * 8)),
        ((32, 32), 4 * (2 * 4 * 8 + 4 * 4)),
        ((32, 32), 4 * (4 * 8 + 4 * 8)),
        ((32, 32), 4 * (4 * 4 + 4 * 8 + 4 * 8)),
    ]


def test_a_policy_says_how_many_bits_are_read_and_written():
    eight = ActivationQuantizer(Int(8, False))
    assert activation_bits(everywhere(eight)) == [
        ((4, 8), 4 * 16 + 4 * 8),
        ((8, 8), 2 * 4 * 8 + 4 * 4),
        ((32, 8), 4 * 8 + 4 * 8),
        ((8, 8), 4 * 4 + 4 * 8 + 4 * 8),
    ]
    # Products read bytes, and write floats.
    assert activation_bits(eight) == [
        ((4, 8), 4 * 16 + 4 * 4 * 8),
        ((8, 8), 2 * 4 * 8 + 4 * 4 * 4),
        ((32, 8), 4 * 8 + 4 * 4 * 8),
        ((8, 8), 4 * 4 + 4 * 8 + 4 * 4 * 8),
    ]
    mixed = {"input/*": ActivationQuantizer(Int(6)), "*": None}
    first, *rest = activation_bits(mixed)
    assert first == ((4, 6), 4 * 16 * 6 / 8 + 4 * 4 * 8)
    assert rest == activation_bits(None)[1:]


def test_a_policy_that_matches_nothing_is_refused():
    with pytest.raises(
        ValueError, match="'frist/output' matches none .* 'first/output'"
    ):
        count(network, NETWORK, X, policy={"frist/output": ActivationQuantizer()})


def test_what_no_product_reads_is_counted_at_its_own_size():
    params = {
        "kernel": KERNEL,
        "bias": jnp.zeros(8, jnp.bfloat16),
        "steps": jnp.zeros((), jnp.int32),
        "flag": jnp.zeros(3, bool),
        "unused": to_qarray(normal(16, 16), Int(2)),
        "shape": jax.ShapeDtypeStruct((5,), jnp.float16),
    }
    counted = count(product, params, X)
    assert counted.other_bytes == 8 * 2 + 4 + 3 + 16 * 16 * 2 / 8 + 5 * 2
    assert counted.weight_bytes == counted.other_bytes + KERNEL.size * 4


def test_numbers_are_parameters_too():
    def fn(params, x):
        return x @ params["kernel"] * params["temperature"]

    counted = count(fn, {"kernel": KERNEL, "temperature": 2.0}, X)
    assert counted.macs == MACS and counted.other_bytes == 4


def test_a_smaller_file_of_the_same_network_does_fewer_bit_operations():
    dense = {"kernel": KERNEL}
    sparse = jc.compress(jc.magnitude_pruning(0.5), dense)
    packed = jc.compress(jc.weight_quantization(bits=4), sparse)
    costs = [count(product, p, X) for p in (dense, sparse, packed)]
    assert costs[0].bit_ops == 2 * costs[1].bit_ops
    # A small weight may round to zero, and then saves more.
    assert costs[1].bit_ops >= 8 * costs[2].bit_ops > 0
    assert len({c.macs for c in costs}) == 1


# Leaves of 2, 4 and 8 bits, with some zeros, and what a function does with them.
PARTS = {
    name: jax.jit(
        lambda w, low=low, bits=bits, width=width: to_qarray(
            w * (w > low), Int(bits), scale_shape=(1, width)
        )
    )(w)
    for name, (w, low, bits, width) in {
        "q": (normal(16, 8, seed=1), -9, 8, 8),
        "k": (normal(16, 8, seed=2), 0, 4, 8),
        "v": (normal(16, 4, seed=3), 0.3, 2, 4),
    }.items()
}


def side_by_side(params):
    return jnp.concatenate([params[name] for name in "qkv"], 1)


JOINS = {
    "concatenated": lambda p, x: x @ side_by_side(p),
    "concatenated the other way": lambda p, x: side_by_side(p).T @ x.T,
    "masked": lambda p, x: x @ (side_by_side(p) * p["mask"]),
    "in a loop": lambda p, x: jax.lax.map(lambda x: x[None] @ side_by_side(p), x),
    "before a loop": lambda p, x: (lambda w: jax.lax.map(lambda x: x[None] @ w, x))(
        side_by_side(p)
    ),
    "parts of it": lambda p, x: [
        x @ side_by_side(p)[:, :8],
        x @ side_by_side(p)[:, 8:],
    ],
}


@pytest.mark.parametrize("name", JOINS)
def test_joined_leaves_count_each_with_its_own_bits(name):
    def one_by_one(params, x):
        return [x @ params[name] for name in "qkv"]

    params = PARTS | {"mask": jnp.ones((16, 20), bool)}
    joined, alone = (count(fn, params, X) for fn in (JOINS[name], one_by_one))
    assert joined.macs == alone.macs
    np.testing.assert_allclose(joined.effective_macs, alone.effective_macs)
    np.testing.assert_allclose(joined.bit_ops, alone.bit_ops)
    np.testing.assert_allclose(joined.weight_bytes, alone.weight_bytes)
    assert joined.other_bytes == alone.other_bytes


def test_layers_that_a_function_stacks_for_a_scan_count_each():
    def stacked(params, x):
        layers = jnp.stack([params["a"], params["b"]])
        return jax.lax.scan(lambda x, w: (x @ w, None), x, layers)[0]

    def unrolled(params, x):
        return x @ params["a"] @ params["b"]

    params = {
        name: to_qarray(normal(16, 16, seed=bits), Int(bits), scale_shape=(1, 16))
        for name, bits in {"a": 8, "b": 2}.items()
    }
    a, b = (count(fn, params, X) for fn in (stacked, unrolled))
    assert (a.macs, a.weight_bytes) == (b.macs, b.weight_bytes)
    only_last = count(lambda p, x: x @ jnp.stack([p["a"], p["b"]])[1], params, X)
    assert only_last.sites[0].bits == (2, 32)
    np.testing.assert_allclose(a.bit_ops, b.bit_ops)


def test_weights_that_are_computed_in_many_steps_are_quick():
    def fn(params, x):
        w = side_by_side(params) * params["mask"]
        for _ in range(60):  # each step reads the one before twice
            w = w * (1 - w)
        return x @ w

    mask = jax.ShapeDtypeStruct((16, 20), jnp.float32)
    shapes = jax.eval_shape(lambda: jc.dense(PARTS)) | {"mask": mask}
    (site,) = jc.sites(fn, shapes, X)
    assert len(site.parts) == 3


def test_sites_name_every_leaf_that_is_joined():
    shapes = jax.eval_shape(lambda: jc.dense(PARTS))
    (site,) = jc.sites(lambda p, x: x @ side_by_side(p), shapes, X)
    assert dict(site.parts) == pytest.approx({"q": 0.4, "k": 0.4, "v": 0.2})
    axes = jc.weight_axes(lambda p, x: x @ side_by_side(p), shapes, X)
    assert set(axes.unknown) == {"q", "k", "v"}


@pytest.mark.parametrize("dtype", [jnp.complex64, np.complex128])
def test_complex_numbers_have_the_bits_of_both_parts(dtype):
    bits = 8 * np.dtype(dtype).itemsize
    params = {"kernel": jax.ShapeDtypeStruct((16, 8), dtype)}
    with jax.enable_x64(bits == 128):
        counted = count(product, params, jax.ShapeDtypeStruct((4, 16), dtype))
    assert counted.sites[0].bits == (bits, bits)
    assert counted.weight_bytes == 16 * 8 * bits / 8
