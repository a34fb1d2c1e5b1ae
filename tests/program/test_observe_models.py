# SPDX-License-Identifier: Apache-2.0
"""Observing whole networks, and weights behind the view of a compressor."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from models import initialized, linen_cnn, linen_transformer
from rows import STATS, close, expected, of_layer

import jaxcompress as jc
from jaxcompress.program.statistics import max_magnitude, moments


class Block(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        y = nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm()(x))
        x = x + y
        return x + nn.Dense(4, name="down")(nn.gelu(nn.Dense(6, name="up")(x))), None


class Stack(nn.Module):
    axis: int = 0

    @nn.compact
    def __call__(self, x):
        layers = nn.scan(
            nn.remat(Block, prevent_cse=False),
            variable_axes={"params": self.axis},
            split_rngs={"params": True},
            length=3,
        )
        return layers(name="layers")(x, None)[0]


class Unrolled(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(3):
            x, _ = Block(name=f"layers_{i}")(x)
        return x


def test_a_scanned_and_checkpointed_network_equals_the_unrolled_one():
    x = normal(2, 5, 4)
    variables = initialized(Stack(), x)
    layers = variables["params"]["layers"]
    apart = {"params": {f"layers_{i}": of_layer(layers, i) for i in range(3)}}
    found = jc.observe(Stack().apply, variables, [x[:1], x[1:]], STATS)
    each = jc.observe(Unrolled().apply, apart, [x], STATS)["params"]
    for i in range(3):
        close(of_layer(found["params"]["layers"], i), each[f"layers_{i}"])


def test_layers_along_another_axis_are_those_along_the_first_or_refused():
    """``nn.scan`` may keep them anywhere; the ways of the statistics then differ."""
    x = normal(2, 5, 4)
    first = initialized(Stack(), x)
    second = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), first)
    where = "*/up/kernel"
    along_first = jc.observe(Stack().apply, first, [x], max_magnitude(), where=where)
    try:
        found = jc.observe(Stack(1).apply, second, [x], max_magnitude(), where=where)
    except ValueError as error:
        assert "'params/layers/up/kernel' (" in str(error)
        return
    close(jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), found), along_first)


@pytest.mark.parametrize(
    "compressor",
    [
        jc.weight_quantization(bits=4),
        jc.weight_quantization(bits=4, granularity=jc.PerGroup(2)),
        jc.magnitude_pruning(0.5),
        jc.weight_sharing(4),
    ],
    ids=["int4", "int4 in groups", "pruned", "shared"],
)
def test_weights_of_a_compressor_are_observed_behind_its_view(compressor):
    params = {"first": {"kernel": normal(4, 6)}, "last": {"kernel": normal(6, 2)}}
    state, x = compressor.init(params), normal(8, 4, seed=1)

    def fn(params, x):
        view = compressor.apply(params, state)
        return nn.relu(x @ view["first"]["kernel"]) @ view["last"]["kernel"]

    found = jc.observe(fn, params, [x], STATS)
    close(found["first"]["kernel"], expected(x))
    hidden = nn.relu(x @ jax.jit(compressor.apply)(params, state)["first"]["kernel"])
    close(found["last"]["kernel"], expected(hidden))


def test_a_network_in_bfloat16():
    model = nn.Dense(3, use_bias=False, dtype=jnp.bfloat16)
    x = normal(16, 4)
    variables = initialized(model, x)
    found = jc.observe(model.apply, variables, [x[:8], x[8:]], STATS)["params"][
        "kernel"
    ]
    close(found, expected(x.astype(jnp.bfloat16)))
    assert found["m"].dtype == found["s"].mean.dtype == jnp.float32
    assert found["g"].gram.dtype == jnp.float32


def test_the_inputs_of_a_model_are_those_that_its_taps_show():
    """Every dense layer and embedding of a transformer, with data in every shape."""
    model = linen_transformer()
    found = jc.observe(model.fn, model.params, [model.args], {"m": max_magnitude()})
    _, features = jc.taps(model.fn, "*/input")(model.params, *model.args)
    layers = found["params"]["layers"]

    def largest(name, *axes):
        return jnp.abs(features[f"params/{name}/input"]).max(axes)

    tied = largest("embed/embedding#1", 0, 1)
    close(found["params"]["embed"]["embedding"]["m"], tied[None])
    for name in ("query", "key", "value"):
        of_heads = largest(f"layers/attention/{name}/kernel", 1, 2)
        close(layers["attention"][name]["kernel"]["m"], of_heads[..., None, None])
    out = largest("layers/attention/out/kernel", 1, 2)  # (layers, heads, width)
    close(layers["attention"]["out"]["kernel"]["m"], out[..., None])
    close(layers["up"]["kernel"]["m"], largest("layers/up/kernel", 1, 2)[..., None])
    close(layers["down"]["kernel"]["m"], largest("layers/down/kernel", 1, 2)[..., None])


def test_convolutions_of_a_model_count_the_pixels_of_their_outputs():
    model = linen_cnn(batch=2)  # of 6 x 6 pixels; the second one strides by 2
    found = jc.observe(model.fn, model.params, [model.args], moments())["params"]
    assert found["Conv_0"]["kernel"].count == 2 * 6 * 6
    assert found["Conv_1"]["kernel"].count == 2 * 3 * 3
    assert found["Dense_0"]["kernel"].count == 2
    assert found["BatchNorm_0"] == {"bias": None, "scale": None}
    # The middle of a window is padded nowhere: all pixels of the image are its rows.
    mean = found["Conv_0"]["kernel"].mean[1, 1, :, 0]
    np.testing.assert_allclose(mean, model.args[0].mean((0, 1, 2)), atol=1e-6)
