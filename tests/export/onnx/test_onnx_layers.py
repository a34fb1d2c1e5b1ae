# SPDX-License-Identifier: Apache-2.0
"""Products and windows: what they compute, and how few operators they take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from onnx_checks import check

RNG = np.random.default_rng(1)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def conv(x, w, layout, strides=(1, 1), padding="SAME", **options):
    return lax.conv_general_dilated(
        x, w, strides, padding, dimension_numbers=layout, **options
    )


NHWC = ("NHWC", "HWIO", "NHWC")
NCHW = ("NCHW", "OIHW", "NCHW")
X = normal(2, 8, 9, 4)

CONVOLUTIONS = {
    "same": {"w": normal(3, 3, 4, 6)},
    "strides": {"w": normal(3, 2, 4, 6), "strides": (2, 3)},
    "dilated": {"w": normal(3, 3, 4, 6), "rhs_dilation": (2, 1)},
    "explicit": {"w": normal(3, 3, 4, 6), "padding": ((0, 2), (1, 0))},
    "negative": {"w": normal(2, 2, 4, 6), "padding": ((-1, 0), (2, -2))},
    "groups": {"w": normal(3, 3, 2, 6), "feature_group_count": 2},
    "depthwise": {"w": normal(3, 3, 1, 8), "feature_group_count": 4},
    "transposed": {
        "w": normal(3, 3, 4, 6),
        "padding": ((1, 2), (2, 2)),
        "lhs_dilation": (2, 2),
    },
    "transposed_groups": {
        "w": normal(3, 2, 2, 6),
        "padding": ((2, 1), (0, 1)),
        "lhs_dilation": (3, 2),
        "rhs_dilation": (1, 2),
        "feature_group_count": 2,
    },
    "transposed_far": {
        "w": normal(2, 2, 4, 6),
        "padding": ((3, 1), (1, 2)),
        "lhs_dilation": (2, 1),
    },
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_is_one_operator_with_its_bias(name):
    options = dict(CONVOLUTIONS[name])
    w = options.pop("w")

    def fn(p, x):
        return conv(x, p["w"], NHWC, **options) + p["b"].reshape(1, 1, 1, -1)

    kinds = check(fn, {"w": w, "b": normal(w.shape[-1])}, X)
    assert kinds["Conv"] + kinds["ConvTranspose"] == 1
    assert kinds["Transpose"] == 2  # input and output are NHWC
    if name != "transposed_far":
        assert not kinds["Add"]


def test_channels_first_moves_nothing():
    def fn(p, x):
        x = jax.nn.relu(conv(x, p["w"], NCHW) + p["b"][:, None, None][None])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return x.mean((2, 3)) @ p["d"].T

    params = {"w": normal(6, 4, 3, 3), "b": normal(6), "d": normal(3, 6)}
    kinds = check(fn, params, normal(2, 4, 8, 8))
    assert not kinds["Transpose"]
    assert kinds["GlobalAveragePool"] == kinds["MaxPool"] == kinds["Gemm"] == 1


def test_one_and_three_dimensions():
    def fn(p, x):
        y = conv(x, p["w"], ("NWC", "WIO", "NWC"), (2,))
        z = conv(x[:, None, None], p["v"], ("NDHWC", "DHWIO", "NDHWC"), (1, 1, 1))
        return jax.nn.relu(y), z

    params = {"w": normal(3, 4, 6), "v": normal(1, 1, 3, 4, 2)}
    check(fn, params, normal(2, 9, 4))


def test_a_kernel_may_be_data():
    def fn(p, x, w):
        return conv(x, w, NHWC)

    check(fn, {}, X, normal(3, 3, 4, 6), dynamic=False)


def test_a_network_is_transposed_only_at_its_input():
    def fn(p, x):
        x = jax.nn.relu(conv(x, p["w0"], NHWC) + p["b0"].reshape(1, 1, 1, 8))
        y = conv(jax.nn.relu(conv(x, p["w1"], NHWC)), p["w2"], NHWC)
        gate = jax.nn.sigmoid(y.mean((1, 2)) @ p["gate"])  # squeeze and excite
        x = jax.nn.relu(x + y * gate[:, None, None])
        x = jnp.concatenate([x, y[..., ::2]], -1)
        x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID") / 4
        return x.mean((1, 2)) @ p["d"] + p["b"][None]

    params = {
        "w0": normal(3, 3, 4, 8) / 6,
        "b0": normal(8),
        "w1": normal(3, 3, 8, 8) / 9,
        "w2": normal(3, 3, 8, 8) / 9,
        "gate": normal(8, 8),
        "d": normal(12, 5),
        "b": normal(5),
    }
    kinds = check(fn, params, X)
    assert kinds["Transpose"] == 1
    assert kinds["Gemm"] == 2 and kinds["AveragePool"] == 1


WINDOWS = {
    "max": (-jnp.inf, lax.max, (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    "min": (jnp.inf, lax.min, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
    "sum": (0.0, lax.add, (1, 3, 3, 1), (1, 2, 2, 1), "SAME"),
    "unusual": (0.0, lax.add, (1, 1, 2, 2), (1, 1, 1, 2), "VALID"),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name):
    check(lambda p, x: lax.reduce_window(x, *WINDOWS[name]), {}, X)


Y = normal(3, 4, 6)
DENSE = {
    "matrix": ("btd,df->btf", Y, normal(6, 5)),
    "transposed": ("btd,fd->btf", Y, normal(5, 6)),
    "heads": ("btd,dhk->bthk", Y, normal(6, 2, 3)),
    "two_axes": ("bthk,hkd->btd", normal(3, 4, 2, 3), normal(2, 3, 6)),
    "other_axis": ("btd,ts->bsd", Y, normal(4, 5)),
    "weight_first": ("ft,btd->fbd", normal(5, 4), Y),
    "vector": ("btd,d->bt", Y, normal(6)),
    "experts": ("btd,tdf->btf", Y, normal(4, 6, 5)),
}


@pytest.mark.parametrize("name", DENSE)
def test_products_with_constants(name):
    spec, a, b = DENSE[name]

    def fn(p, x):
        ins = (p, x) if name == "weight_first" else (x, p)
        return jnp.einsum(spec, *ins)

    params, x = (a, b) if name == "weight_first" else (b, a)
    kinds = check(fn, params, x)
    assert kinds["Gemm"] + kinds["MatMul"] == 1
    assert kinds["Gemm"] == (name != "experts")


PRODUCTS = {
    "attention": ("bthd,bshd->bhts", normal(2, 4, 3, 5), normal(2, 6, 3, 5)),
    "values": ("bhts,bshd->bthd", normal(2, 3, 4, 6), normal(2, 6, 3, 5)),
    "vectors": ("bd,bd->b", normal(2, 5), normal(2, 5)),
    "outer": ("bi,bj->bij", normal(2, 5), normal(2, 4)),
    "many": ("bijkl,bklm->bijm", normal(2, 3, 4, 2, 2), normal(2, 2, 2, 5)),
    "gram": ("bd,cd->bc", normal(2, 5), normal(2, 5)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_of_data(name):
    spec, a, b = PRODUCTS[name]
    kinds = check(lambda p, x, y: jnp.einsum(spec, x, y), {}, a, b)
    assert kinds["MatMul"] == 1


def test_bias_of_dense_layers_is_part_of_the_product():
    def fn(p, x):
        y = x @ p["w"] + p["b"][None, None]
        z = jnp.einsum("btd,dhk->bhtk", x, p["v"]) + p["c"][None, :, None]
        return y, z, 2 + x @ p["w"]

    params = {
        "w": normal(6, 5),
        "b": normal(5),
        "v": normal(6, 2, 3),
        "c": normal(2, 3),
    }
    kinds = check(fn, params, Y)
    assert kinds["Gemm"] == 3 and not kinds["Add"] + kinds["Sub"]


def test_integer_products():
    a, b = (RNG.integers(-5, 5, s).astype(np.int32) for s in ((3, 4), (4, 2)))
    check(lambda p, x: x @ jnp.asarray(b), {}, a)
