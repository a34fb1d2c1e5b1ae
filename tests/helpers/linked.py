# SPDX-License-Identifier: Apache-2.0
"""Networks with links, as plain functions, and how to compare what they give."""

import jax
import jax.numpy as jnp
import numpy as np
from draws import normal, put
from jax import lax

import jaxcompress as jc
from jaxcompress.quantize.equivalent import Link


def compress(compressor, params, **extras):
    """``jc.compress``, as one compiled program."""
    return jax.jit(lambda p, x: jc.compress(compressor, p, **x))(params, extras)


def uneven(n, seed=0, decades=2):
    """Positive factors that differ by orders of magnitude."""
    powers = np.random.default_rng(seed).uniform(-decades / 2, decades / 2, n)
    return put(10**powers)


def close(a, b, rtol=1e-5):
    """Equal but for a part of the largest magnitude."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    assert np.max(np.abs(a - b)) <= rtol * np.max(np.abs(a))


def mlp_params(sizes=(6, 16, 12, 5), dtype=jnp.float32):
    params = {}
    for i, (n, m) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        w = normal(n, m, seed=i) * uneven(m, seed=i)[None]
        params[f"Dense_{i}"] = {
            "kernel": w.astype(dtype),
            "bias": normal(m, seed=9 + i, dtype=dtype),
        }
    return params


def mlp(params, x, act=jax.nn.relu):
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        x = (x if i == 0 else act(x)) @ layer["kernel"] + layer["bias"][None]
    return x


def mlp_links(depth=3):
    return [
        Link(
            {f"Dense_{i}/kernel": -1, f"Dense_{i}/bias": 0},
            {f"Dense_{i + 1}/kernel": 0},
        )
        for i in range(depth - 1)
    ]


def conv(x, w, groups=1):
    return lax.conv_general_dilated(
        x,
        w,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def uneven_conv(*shape):
    return normal(*shape) * uneven(shape[-1]).reshape(1, 1, 1, -1)


def cnn_params():
    return {
        "conv": {"kernel": uneven_conv(3, 3, 2, 8), "bias": normal(8, seed=1)},
        "depth": {"kernel": normal(3, 3, 1, 8, seed=2), "bias": normal(8, seed=3)},
        "point": {"kernel": uneven_conv(1, 1, 8, 4)},
        "dense": {"kernel": normal(2 * 2 * 4, 5, seed=5)},
    }


def cnn(params, x):
    """4 x 4 images: a convolution, a depthwise and a pointwise one, and a dense layer."""
    first, depth = (
        params[name]["bias"].reshape(1, 1, 1, -1) for name in ("conv", "depth")
    )
    x = jax.nn.relu(conv(x, params["conv"]["kernel"]) + first)
    x = conv(x, params["depth"]["kernel"], groups=8) + depth
    x = jax.nn.relu(conv(jax.nn.leaky_relu(x), params["point"]["kernel"]))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    return x.reshape(len(x), -1) @ params["dense"]["kernel"]


CNN_LINKS = [
    Link({"conv/kernel": -1, "conv/bias": 0}, {"depth/kernel": -1}),
    Link({"depth/kernel": -1, "depth/bias": 0}, {"point/kernel": -2}),
    Link({"point/kernel": -1}, {"dense/kernel": 0}),  # flattened: 4 positions of 4
]


def attention_params(heads=2, shared=2, features=8, dtype=jnp.float32):
    """``heads`` heads of values, each for ``shared`` heads of queries."""
    width, queries = 12, heads * shared
    return {
        "q": normal(width, queries, features, seed=1, dtype=dtype) / 4,
        "k": normal(width, heads, features, seed=2, dtype=dtype) / 4,
        "v": normal(width, heads, features, seed=3, dtype=dtype),
        "v_bias": normal(heads, features, seed=4, dtype=dtype),
        "out": normal(queries, features, width, seed=5, dtype=dtype),
    }


def attention(params, x):
    shared = params["q"].shape[1] // params["k"].shape[1]
    q = jnp.einsum("btd,dhf->bthf", x, params["q"])
    k = jnp.einsum("btd,dhf->bthf", x, params["k"])
    v = jnp.einsum("btd,dhf->bthf", x, params["v"]) + params["v_bias"][None, None]
    k, v = (jnp.repeat(a, shared, axis=2) for a in (k, v))
    weights = jax.nn.softmax(jnp.einsum("bthf,bshf->bhts", q, k), axis=-1)
    return jnp.einsum("bhts,bshf,hfd->btd", weights, v, params["out"])


ATTENTION_LINK = Link({"v": (1, 2), "v_bias": (0, 1)}, {"out": (0, 1)})


def stacked_params(layers=3, dtype=jnp.float32):
    return {
        "up": {
            "kernel": normal(layers, 6, 8, dtype=dtype),
            "bias": normal(layers, 8, seed=1, dtype=dtype),
        },
        "down": {"kernel": normal(layers, 8, 6, seed=2, dtype=dtype)},
    }


def stacked(params, x):
    def layer(x, p):
        hidden = jax.nn.relu(x @ p["up"]["kernel"] + p["up"]["bias"][None])
        return x + 0.1 * hidden @ p["down"]["kernel"], None

    return lax.scan(layer, x, params)[0]


STACKED_LINK = Link({"up/kernel": (0, 2), "up/bias": (0, 1)}, {"down/kernel": (0, 1)})

NETWORKS = {
    "mlp": (mlp, mlp_params, mlp_links(), (7, 6)),
    "cnn": (cnn, cnn_params, CNN_LINKS, (3, 4, 4, 2)),
    "attention": (attention, attention_params, [ATTENTION_LINK], (2, 5, 12)),
    "stacked": (stacked, stacked_params, [STACKED_LINK], (7, 6)),
}
