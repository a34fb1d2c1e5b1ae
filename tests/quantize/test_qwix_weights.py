# SPDX-License-Identifier: Apache-2.0
"""Weights in qwix: an independent implementation of the same grids.

qwix patches JAX for the whole process when it is used, so it runs in a process of its own:
this file, called as a program.
"""

import importlib.util
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.quantize.scales import of_range, power_of_two

# qwix lets the range of n bits end half a step later: at 127.5 instead of 127.
SHAPE = (64, 12)
INTS = {"int2": 2, "int3": 3, "int4": 4, "int5": 5, "int6": 6, "int7": 7, "int8": 8}

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("qwix") is None, reason="qwix is not installed"
)


def kernel():
    draw = np.random.default_rng(0)
    size = np.exp(draw.normal(size=(1, SHAPE[1])))
    return jnp.asarray(draw.normal(size=SHAPE) * size, "float32")


def qwix_main(path):
    """Write the codes, scales and values that qwix makes of the kernel."""
    import qwix

    w, results = kernel(), {}

    def keep(name, qtype, **options):
        q = qwix.quantize(w, qtype, **options)
        results[f"{name}/value"] = qwix.dequantize(q)
        results[f"{name}/scale"] = q.scale
        results[f"{name}/codes"] = q.qvalue.astype("float32")
        if q.zero_point is not None:
            results[f"{name}/zero"] = q.zero_point.astype("int32")

    for name, bits in INTS.items():
        high = 2 ** (bits - 1) - 1
        keep(name, name, channelwise_axes=[1])
        same_bound = f"absmax,{(high + 0.5) / high}"
        keep(f"{name}/same", name, channelwise_axes=[1], calibration_method=same_bound)
    for name in ("int4", "int8"):
        keep(
            f"{name}/asymmetric",
            name,
            channelwise_axes=[1],
            calibration_method="minmax",
        )
    for name in ("nf4", "float8_e4m3fn", "float8_e5m2"):
        keep(name, name, channelwise_axes=[1])
        keep(f"{name}/groups", name, channelwise_axes=[1], tiled_axes={0: 16})
    for name in ("mxfp8", "mxfp4"):
        keep(name, name, channelwise_axes=[1], tiled_axes={0: 32})
    np.savez(path, **{k: np.asarray(v) for k, v in results.items()})  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    path = tmp_path_factory.mktemp("qwix") / "results.npz"
    # Compiled as its users compile it: it leaves the rounding of floats to the compiler.
    plain = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    subprocess.run([sys.executable, __file__, str(path)], check=True, env=plain)
    return np.load(path)


def ours(**options):
    return jc.compress(jc.weight_quantization(**options), {"kernel": kernel()})[
        "kernel"
    ]


@pytest.mark.parametrize("name", INTS)
def test_symmetric_integers_agree(oracle, name):
    q = ours(bits=INTS[name])
    np.testing.assert_allclose(q.scale, oracle[f"{name}/same/scale"], rtol=1e-6)
    steps = kernel() / q.scale
    tie = jnp.abs(steps - jnp.floor(steps) - 0.5) < 1e-4
    differ = q.codes != oracle[f"{name}/same/codes"]
    assert not (differ & ~tie).any()
    np.testing.assert_allclose(
        q.dense(), oracle[f"{name}/same/value"], atol=1.001 * float(q.scale.max())
    )
    # With the bound of its own, which is half a step further, within one code.
    apart = jnp.abs(q.codes.astype(int) - oracle[f"{name}/codes"])
    assert (apart <= 1).all()
    assert (jnp.abs(q.dense() - oracle[f"{name}/value"]) <= 1.001 * q.scale).all()


@pytest.mark.parametrize("bits", [4, 8])
def test_asymmetric_integers_agree(oracle, bits):
    q, name = ours(bits=bits, symmetric=False), f"int{bits}/asymmetric"
    np.testing.assert_allclose(q.scale, oracle[f"{name}/scale"], rtol=1e-6)
    shift = 2 ** (bits - 1)  # its codes are signed
    np.testing.assert_array_equal(q.zero_point, oracle[f"{name}/zero"] + shift)
    steps = kernel() / q.scale
    tie = jnp.abs(steps - jnp.floor(steps) - 0.5) < 1e-4
    differ = q.codes != oracle[f"{name}/codes"] + shift
    assert not (differ & ~tie).any()


@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize(
    ("name", "fmt"),
    [
        ("nf4", formats.NF4),
        ("float8_e4m3fn", formats.E4M3),
        ("float8_e5m2", formats.E5M2),
    ],
)
def test_normal_floats_and_small_floats_agree(oracle, name, fmt, groups):
    granularity = jc.PerGroup(16) if groups else jc.PerChannel()
    q = ours(fmt=fmt, granularity=granularity)
    key = f"{name}/groups" if groups else name
    np.testing.assert_allclose(q.scale, oracle[f"{key}/scale"], rtol=1e-6)
    differ = ~np.isclose(q.dense(), oracle[f"{key}/value"], rtol=1e-5, atol=1e-9)
    assert differ.mean() < 0.005  # on a middle, rounded apart


@pytest.mark.parametrize(
    ("name", "fmt"), [("mxfp8", formats.E4M3), ("mxfp4", formats.E2M1)]
)
def test_mx_agrees_where_the_exponents_do(oracle, name, fmt):
    w = kernel()
    q = ours(fmt=fmt, granularity=jc.PerGroup(32), scale=power_of_two)
    theirs = oracle[f"{name}/scale"]
    ratio = theirs / q.scale.astype(jnp.float32)
    # It rounds the exponent up, so that nothing is clipped; the standard rounds down.
    assert set(np.unique(ratio)) <= {1.0, 2.0} and (ratio == 2).any()
    known = jnp.asarray(theirs), None
    c = jc.weight_quantization(fmt=fmt, scale=lambda *_: known)
    np.testing.assert_array_equal(
        jc.compress(c, {"kernel": w})["kernel"].dense(), oracle[f"{name}/value"]
    )
    equal = np.repeat(ratio == 1, 32, 0)
    np.testing.assert_array_equal(
        np.asarray(q.dense())[equal], oracle[f"{name}/value"][equal]
    )


def test_its_bound_is_half_a_step_further(oracle):
    bound = jnp.abs(kernel()).max(0, keepdims=True)
    ratio = of_range(-bound, bound, formats.Int(8))[0] / oracle["int8/scale"]
    np.testing.assert_allclose(ratio, 127.5 / 127, rtol=1e-6)


if __name__ == "__main__":
    qwix_main(sys.argv[1])
