# SPDX-License-Identifier: Apache-2.0
"""Patterns become one operator, and what only looks like them does not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from onnx_checks import check

X = np.random.default_rng(2).normal(size=(3, 4, 6)).astype(np.float32)


def test_softmax_over_any_axis():
    def fn(p, x):
        return jax.nn.softmax(x), jax.nn.softmax(x, 1), jax.nn.log_softmax(x)

    kinds = check(fn, {}, X)
    assert kinds["Softmax"] == 2 and kinds["LogSoftmax"] == 1
    assert not kinds["Exp"] + kinds["Log"]


def test_softmax_whose_parts_are_read_elsewhere():
    def fn(p, x):
        top = jnp.exp(x - x.max(-1, keepdims=True))
        return top / top.sum(-1, keepdims=True), top

    assert check(fn, {}, X)["Softmax"] == 0


def test_softmax_over_two_axes_stays():
    assert check(lambda p, x: jax.nn.softmax(x, (1, 2)), {}, X)["Softmax"] == 0


def test_both_forms_of_gelu():
    def fn(p, x):
        return jax.nn.gelu(x), jax.nn.gelu(x, approximate=False)

    assert check(fn, {}, X)["Gelu"] == 2
    assert check(fn, {}, X, opset=18)["Gelu"] == 0


def by_hand(p, x):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.square(x - mean).mean(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + 1e-3)


def equinox_like(p, x):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    normal = (x - mean) * lax.rsqrt(jnp.maximum(0.0, variance) + 1e-5)
    return jnp.linspace(1, 2, 6)[None, None] * normal + jnp.ones((1, 1, 6))


def test_layer_norms():
    fast = nn.LayerNorm()
    params = jax.tree.map(lambda a: a + 0.5, fast.init(jax.random.key(0), X))
    slow = nn.LayerNorm(use_fast_variance=False, use_bias=False)
    for fn in (
        fast.apply,
        lambda p, x: slow.apply({"params": {"scale": p["params"]["scale"]}}, x),
        nn.LayerNorm(use_scale=False, use_bias=False).apply,
        by_hand,
        equinox_like,
    ):
        kinds = check(fn, params if fn == fast.apply else params, X)
        assert kinds["LayerNormalization"] == 1, fn
        assert not kinds["Sqrt"]


def test_a_norm_over_another_axis_stays():
    def fn(p, x):
        mean = x.mean(1, keepdims=True)
        variance = jnp.square(x - mean).mean(1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-3)

    assert check(fn, {}, X)["LayerNormalization"] == 0


def test_a_norm_with_the_variance_of_another_value_stays():
    def fn(p, x):
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(2 * x - mean).mean(-1, keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-3)

    assert check(fn, {}, X)["LayerNormalization"] == 0


def test_clips():
    def fn(p, x):
        return jnp.clip(x, -0.5, 0.5), jax.nn.relu6(x), jnp.minimum(1, jax.nn.relu(x))

    kinds = check(fn, {}, X)
    assert kinds["Clip"] == 3 and not kinds["Min"] + kinds["Max"] + kinds["Relu"]


def test_bounds_that_cross_stay():
    kinds = check(lambda p, x: jnp.minimum(jnp.maximum(x, 1.0), -1.0), {}, X)
    assert kinds["Clip"] == 0


def test_a_mean_by_another_number_stays():
    kinds = check(lambda p, x: x.sum(-1) / 5, {}, X)
    assert kinds["ReduceSum"] == 1 and not kinds["ReduceMean"]
