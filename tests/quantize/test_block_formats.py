# SPDX-License-Identifier: Apache-2.0
"""Block formats against the text of their standards, in NumPy."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from bitwise import same
from draws import normal

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, operands_only
from jaxcompress.quantize import fake_quant, mx_quantization, nvfp4_quantization
from jaxcompress.quantize.scales import absmax, blocks, two_level

# Of OCP MX v1.0, table 1: the exponent of the largest number of each element format.
EMAX = {"E5M2": 15, "E4M3": 8, "E3M2": 4, "E2M3": 2, "E2M1": 2, "int8": 0}
DTYPES = {
    "E5M2": ml_dtypes.float8_e5m2,
    "E4M3": ml_dtypes.float8_e4m3fn,
    "E3M2": ml_dtypes.float6_e3m2fn,
    "E2M3": ml_dtypes.float6_e2m3fn,
    "E2M1": ml_dtypes.float4_e2m1fn,
}


def fmt_of(name):
    return Int(8) if name == "int8" else getattr(formats, name)


def saturated(x, dtype):
    """To the nearest, ties to even, overflow to the largest (section 5.3 and 6.3)."""
    bound = float(ml_dtypes.finfo(dtype).max)
    return np.clip(x, -bound, bound).astype(dtype).astype(np.float64)


def mx_reference(w, name):
    """Section 6.3: X = 2**(floor(log2(max |V|)) - emax), P_i = quantize(V_i / X)."""
    v = np.float64(w).reshape(-1, 32, w.shape[1])
    largest = np.abs(v).max(1, keepdims=True)
    exponent = np.floor(np.log2(np.where(largest > 0, largest, 1))) - EMAX[name]
    x = np.where(largest > 0, 2.0**exponent, 1)
    if name == "int8":  # an implied scale of 2**-6; the smallest code is left out
        p = np.clip(np.round(v / x * 64), -127, 127) / 64
    else:
        p = saturated(np.float32(v / x), DTYPES[name])
    return (p * x).reshape(w.shape), x[:, 0]


def nvfp4_reference(w):
    """Global scale max / (6 * 448), block scales max / 6 of it in E4M3, then E2M1."""
    v = np.float64(w).reshape(-1, 16, w.shape[1])
    whole = np.float64(np.float32(np.abs(v).max() / (6 * 448)))
    scale = saturated(np.abs(v).max(1, keepdims=True) / 6 / whole, DTYPES["E4M3"])
    scale = np.maximum(scale, 2.0**-9) * whole
    return (saturated(v / scale, DTYPES["E2M1"]) * scale).reshape(w.shape)


def weights(seed=0, rows=128, columns=6):
    key = jax.random.key(seed)
    w = jax.random.normal(key, (rows, columns))
    size = 2.0 ** jax.random.randint(jax.random.fold_in(key, 1), (rows, 1), -6, 6)
    return (w * size).at[:32, 1].set(0).at[3, 3].set(0)


@pytest.mark.parametrize("name", EMAX)
def test_mx_is_that_of_the_standard(name):
    w = weights()
    q = jc.compress(mx_quantization(fmt_of(name)), {"kernel": w})["kernel"]
    values, scale = mx_reference(np.asarray(w), name)
    assert q.scale.dtype == jnp.float8_e8m0fnu and q.codes.dtype.itemsize == 1
    implied = 2.0**-6 if name == "int8" else 1
    empty = np.asarray(jnp.abs(w).reshape(4, 32, 6).max(1) == 0)
    got = np.asarray(q.scale.astype(jnp.float32))
    np.testing.assert_array_equal(got, np.where(empty, 1, scale * implied))
    np.testing.assert_array_equal(q.dense(), np.float32(values))
    c = mx_quantization(fmt_of(name))
    same(c.apply({"kernel": w}, c.init({"kernel": w}))["kernel"], q.dense())


def test_what_the_standard_clips():
    # 7.9 has the exponent of 4, the largest number is 6: a quarter of the range is lost.
    w = jnp.zeros((32, 1)).at[0].set(7.9).at[1].set(-6.2).at[2].set(5.1)
    q = jc.compress(mx_quantization(), {"kernel": w})["kernel"]
    assert q.dense()[:3, 0].tolist() == [6.0, -6.0, 6.0]


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30])
def test_nvfp4_is_that_of_its_definition(size):
    w = weights(1) * size
    q = jc.compress(nvfp4_quantization(), {"kernel": w})["kernel"]
    assert q.scale.codes.dtype == jnp.float8_e4m3fn and q.scale.scale.shape == (1, 1)
    reference = nvfp4_reference(np.asarray(w))
    different = ~np.isclose(q.dense(), reference, rtol=1e-6, atol=0)
    # Quotients that lie on a middle may be rounded apart in float32 and float64.
    assert different.mean() < 0.01
    assert not q.dense()[w == 0].any()


@pytest.mark.slow
def test_nvfp4_of_zeros_and_of_blocks_of_very_different_size():
    zeros = jnp.zeros((32, 2))
    assert (
        not jc.compress(nvfp4_quantization(), {"kernel": zeros})["kernel"].dense().any()
    )
    w = jnp.ones((32, 1)).at[:16].set(1e-9)
    dense = jc.compress(nvfp4_quantization(), {"kernel": w})["kernel"].dense()
    np.testing.assert_allclose(dense[16:], 1, rtol=0.1)
    assert (jnp.abs(dense[:16]) < 1e-3).all()


@pytest.mark.parametrize("spoiled", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("make", [mx_quantization, nvfp4_quantization])
def test_what_is_not_finite_is_not_overlooked(make, spoiled):
    c = make()
    w = weights(2).at[40, 2].set(spoiled)
    with pytest.raises(ValueError, match="'kernel' holds NaN or infinite"):
        c.init({"kernel": w})
    view = jax.jit(lambda p: c.apply(p, c.init(p)))({"kernel": w})["kernel"]
    assert jnp.isnan(view[32:48, 2]).all()  # at least its block


BITS = {
    "mxfp4": (mx_quantization(), 4.25, 8.25),
    "mxint8": (mx_quantization(Int(8)), 8.25, 8.25),
    "mxfp8": (mx_quantization(formats.E4M3), 8.25, 8.25),
    "mxfp6": (mx_quantization(formats.E2M3), 8.25, 8.25),
    "nvfp4": (nvfp4_quantization(), 4.5, 8.5),
}
NOMINAL = {"mxfp4": 4.25, "mxint8": 8.25, "mxfp8": 8.25, "mxfp6": 6.25, "nvfp4": 4.5}


@pytest.mark.parametrize("name", BITS)
def test_bits_a_weight_in_memory_and_on_disk(name, tmp_path):
    c, packed_bits, bits = BITS[name]
    w = normal(256, 128, seed=3)
    shipped = jc.compress(c, {"kernel": w})

    def in_memory(tree):
        return 8 * sum(x.nbytes for x in jax.tree.leaves(tree)) / w.size

    whole = 32 / w.size  # NVFP4's scale of the tensor
    assert bits <= in_memory(shipped) <= bits + whole
    packed = jc.pack_codes(shipped)
    assert packed_bits <= in_memory(packed) <= packed_bits + whole
    for tree in (shipped, packed):
        jc.save(tmp_path / "file", tree)
        on_disk = 8 * (tmp_path / "file").stat().st_size / w.size
        assert on_disk <= NOMINAL[name] + 0.25  # header and tables


@pytest.mark.parametrize(
    ("make", "size"), [(mx_quantization, 32), (nvfp4_quantization, 16)]
)
def test_blocks_that_do_not_divide_are_named(make, size):
    with pytest.raises(
        ValueError,
        match=f"'layer/kernel': .* divide axis 0 .* length 40, got {size}. Use a divisor",
    ):
        make().init({"layer": {"kernel": jnp.ones((40, 2))}})


def test_asymmetric_formats_have_no_shared_exponents():
    params = {"kernel": weights()}
    for c in (
        mx_quantization(Int(8, symmetric=False)),
        jc.weight_quantization(
            bits=4, symmetric=False, granularity=jc.PerGroup(16), scale=two_level
        ),
    ):
        with pytest.raises(ValueError, match="needs a symmetric format"):
            jc.compress(c, params)


@pytest.mark.parametrize("fmt", ["E2M1", "E4M3", "int8"])
def test_activations_in_blocks(fmt):
    x = weights(4).T  # (6, 128)
    kernel = normal(128, 3, seed=5)
    way = operands_only(ActivationQuantizer(fmt_of(fmt), blocks(32)))
    quantized = jc.quantize_activations(lambda p, x: x @ p["w"], way)
    params = {"w": kernel}
    ranges = quantized.init(params, x)
    out, after = jax.jit(quantized.train)(params, ranges, x)
    assert not jax.tree.leaves((ranges, after))  # nothing is kept
    values, _ = mx_reference(np.asarray(x).T, fmt)
    np.testing.assert_allclose(
        out, np.float32(values).T @ np.asarray(kernel), rtol=1e-4, atol=1e-3
    )

    def loss(x):
        return quantized.train(params, ranges, x)[0].sum()

    grads = jax.jit(jax.grad(loss))(x)
    assert jnp.isfinite(grads).all() and (grads != 0).any()


def test_activations_that_do_not_split_are_named():
    way = ActivationQuantizer(formats.E2M1, blocks(32))
    quantized = jc.quantize_activations(lambda p, x: x @ p["w"], way)
    params, x = {"w": jnp.ones((40, 2))}, jnp.ones((3, 40))
    with pytest.raises(
        ValueError,
        match=r"multiple of the block size 32, got an activation of shape \(3, 40\)",
    ):
        quantized.train(params, quantized.init(params, x), x)


def test_blocks_along_another_axis_and_with_other_scales():
    x = weights(6, 64, 4).at[:32, 1].set(1)
    kept = blocks(32, axis=0, scale=absmax)
    scale, _ = kept.read((), x, Int(4))
    np.testing.assert_allclose(  # pyright: ignore[reportCallIssue]
        scale,  # pyright: ignore[reportArgumentType]
        jnp.abs(x).reshape(2, 32, 4).max(1) / 7,
        rtol=1e-6,
    )
    view = fake_quant(x, Int(4), scale=lambda v, s, f: kept.read((), v, f))
    same(view, fake_quant(x, Int(4), scale_shape=(2, 4)))
