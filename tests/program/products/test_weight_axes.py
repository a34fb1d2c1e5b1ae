# SPDX-License-Identifier: Apache-2.0
import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import jaxcompress as jc
from jaxcompress.program import OpaqueWarning, weight_axes


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return x + nn.MultiHeadDotProductAttention(num_heads=2)(x, x), None


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3))(x).reshape(len(x), -1, 8)
        layers = nn.scan(
            Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
        )
        x, _ = layers()(x, None)
        return nn.Dense(5)(x)


def network():
    x = jnp.ones((2, 4, 4, 3))
    params = Net().init(jax.random.key(0), x)["params"]
    return lambda p, x: Net().apply({"params": p}, x), params, x


def test_convolutions_attention_and_stacked_layers_are_read():
    axes = weight_axes(*network())
    attention = "ScanBlock_0/MultiHeadDotProductAttention_0"
    assert {path: a.contraction for path, a in axes.items()} == {
        "Conv_0/kernel": (0, 1, 2),
        f"{attention}/query/kernel": (1,),
        f"{attention}/key/kernel": (1,),
        f"{attention}/value/kernel": (1,),
        f"{attention}/out/kernel": (1, 2),
        "Dense_0/kernel": (0,),
    }
    assert axes[f"{attention}/query/kernel"] == jc.Axes((2, 3), (1,), (0,))
    assert axes["Conv_0/kernel"] == jc.Axes((3,), (0, 1, 2), ())
    assert not axes.unknown


def test_every_kernel_gets_its_scales_from_them():
    fn, params, x = network()
    axes = weight_axes(fn, params, x)
    int8 = jc.weight_quantization(bits=8, granularity=jc.PerChannel(axes=axes))
    packed = jc.compress(int8, params)
    attention = packed["ScanBlock_0"]["MultiHeadDotProductAttention_0"]
    assert attention["out"]["kernel"].scale.shape == (3, 1, 1, 8)
    assert packed["Conv_0"]["kernel"].scale.shape == (1, 1, 1, 8)
    # One scale an output is what an integer product needs.
    steps = jc.execute(fn, pays=lambda site: True).plan(packed, x).steps
    named = {s.site.leaf: s.reason for s in steps if s.site.leaf}
    assert {path for path, reason in named.items() if reason} == {"Conv_0/kernel"}


def test_a_leaf_that_is_used_in_two_ways_is_left_out_and_said():
    axes = weight_axes(
        lambda p, x: x @ p["w"] @ p["w"].T @ p["u"],
        {"w": jnp.ones((4, 3)), "u": jnp.ones((4, 2))},
        jnp.ones((2, 4)),
    )
    assert dict(axes) == {"u": jc.Axes((1,), (0,), ())}
    assert axes.unknown == {"w": "'w#1' sums over other axes than its first use"}


def test_what_cannot_be_followed_is_left_out_and_said():
    def fn(p, x):
        return jnp.einsum("bij,ij->bj", x, p["w"].reshape(3, 4))

    axes = weight_axes(fn, {"w": jnp.ones(12)}, jnp.ones((2, 3, 4)))
    assert not axes and "mixes its axes" in axes.unknown["w"]


def test_paths_are_no_globs():
    params = {"a[0]": jnp.ones((2, 3))}
    axes = weight_axes(lambda p, x: x @ p["a[0]"], params, jnp.ones((1, 2)))
    granularity = jc.PerChannel(axes=axes)
    assert granularity.scale_shape("a[0]", (2, 3)) == (1, 3)


def test_opaque_parts_are_said():
    @jax.custom_vjp
    def hidden(w, x):
        return x @ w

    hidden.defvjp(lambda w, x: (x @ w, ()), lambda _, g: (g, g))
    with pytest.warns(OpaqueWarning, match="weight_axes leaves these parts"):
        weight_axes(lambda p, x: hidden(p["w"], x), {"w": jnp.eye(2)}, jnp.eye(2))
