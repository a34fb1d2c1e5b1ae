# SPDX-License-Identifier: Apache-2.0
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.quantize import bias_correction


class Net(nn.Module):
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), feature_group_count=self.groups)(x)
        x = nn.relu(x)
        return nn.DenseGeneral((2, 3), axis=(1, 2, 3))(x)


def made(groups=1) -> Any:
    model, x = Net(groups), jax.nn.relu(normal(16, 5, 5, 2))
    params = model.init(jax.random.key(0), x)["params"]

    def fn(params, x):
        return model.apply({"params": params}, x)

    axes = jc.weight_axes(fn, params, x)
    means = jc.observe(fn, params, [x], jc.program.statistics.moments())
    c = jc.weight_quantization(bits=2, granularity=jc.PerTensor())
    return fn, params, x, axes, means, jc.compress(c, params)


@pytest.mark.parametrize("groups", [1, 2])
def test_the_mean_of_every_layer_is_restored(groups):
    _, params, x, axes, means, small = made(groups)
    better = bias_correction(params, small, means, axes=axes)
    kernel = params["Conv_0"]["kernel"]

    def conv(p) -> Any:
        layer: Any = nn.Conv(4, (3, 3), feature_group_count=groups)
        return layer.apply({"params": jc.dense(p)["Conv_0"]}, x).mean((0, 1, 2))

    assert jnp.abs(conv(small) - conv(params)).max() > 0.02
    np.testing.assert_allclose(conv(better), conv(params), atol=1e-5)
    assert better["Conv_0"]["kernel"] is small["Conv_0"]["kernel"]
    assert kernel.ndim == 4

    last = params["DenseGeneral_0"]
    moved = better["DenseGeneral_0"]["bias"] - last["bias"]
    error = small["DenseGeneral_0"]["kernel"].dense() - last["kernel"]
    mean = means["DenseGeneral_0"]["kernel"].mean
    np.testing.assert_allclose(
        moved, -(error * mean).sum((0, 1, 2)), rtol=1e-5, atol=1e-6
    )


def test_floats_on_a_grid_will_do_and_jit_agrees():
    _, params, _, axes, means, small = made()
    correct = jax.jit(lambda q: bias_correction(params, q, means, axes=axes))
    for name, leaf in correct(jc.dense(small))["Conv_0"].items():
        expected = jc.dense(bias_correction(params, small, means, axes=axes))
        np.testing.assert_allclose(leaf, expected["Conv_0"][name], rtol=1e-5, atol=1e-6)


def test_names():
    def fn(p, x):
        return x @ p["w"] + p["b"][None] + (x @ p["c"]["kernel"] + p["shift"][None])

    params = {
        "w": normal(4, 3), "b": jnp.zeros(3), "shift": jnp.zeros(3),
        "c": {"kernel": normal(4, 3, seed=1)},
    }  # fmt: skip
    x = jnp.abs(normal(32, 4))
    means = jc.observe(fn, params, [x], jc.program.statistics.moments())
    small = jc.compress(jc.weight_quantization(bits=2), params)
    better = bias_correction(params, small, means, biases={"c/*": "shift"})
    mean = fn(jc.dense(better), x).mean(0)
    np.testing.assert_allclose(mean, fn(params, x).mean(0), atol=1e-5)
    with pytest.raises(
        ValueError, match="'c/kernel' is selected but has no bias: .*'c/bias'.*where="
    ):
        bias_correction(params, small, means)
    with pytest.raises(
        ValueError, match="maps 'c/kernel' to 'shfit', but params has no such leaf"
    ):
        bias_correction(params, small, means, biases={"c/*": "shfit"})
    some = bias_correction(params, small, means, where="w")
    np.testing.assert_array_equal(some["shift"], 0)
    assert some["b"].any()


def test_what_is_missing_is_named():
    _, params, _, axes, means, small = made()
    gram = jax.tree.map(lambda x: x, params)
    with pytest.raises(ValueError, match="'Conv_0/kernel' is selected.*moments"):
        bias_correction(params, small, gram, axes=axes)
    with pytest.raises(ValueError, match="'Conv_0/bias' has shape .4,. and .*as axes="):
        bias_correction(
            params, small, means, axes=jc.Axes(contraction=2), where="Conv_0/kernel"
        )
    both = {
        **small,
        "Conv_0": {
            "kernel": small["Conv_0"]["kernel"],
            "bias": jc.quantize.to_qarray(params["Conv_0"]["bias"], jc.formats.Int(8)),
        },
    }
    with pytest.raises(
        ValueError, match="'Conv_0/bias' must be an array, got a QArray"
    ):
        bias_correction(params, both, means, axes=axes)


def layer(offset, rows):
    """One layer, statistics of some rows of input, and its error on other rows."""
    params = {"kernel": normal(64, 16), "bias": jnp.zeros(16)}

    def fn(p, x):
        return x @ p["kernel"] + p["bias"][None]

    x, others = (normal(n, 64, seed=n) + offset for n in (rows, 4096))
    means = jc.observe(fn, params, [x], jc.program.statistics.moments())
    small = jc.compress(jc.weight_quantization(bits=3), params)

    def error(p):
        return jnp.sum((fn(jc.dense(p), others) - fn(params, others)) ** 2)

    return params, small, means, error


def test_a_shift_that_may_be_chance_is_left_and_named():
    params, small, means, error = layer(offset=0.0, rows=8)
    shift = (small["kernel"].dense() - params["kernel"]) * means["kernel"].mean
    by_hand = {**small, "bias": -shift.sum(0)}
    assert error(by_hand) > 1.05 * error(small)
    with pytest.warns(
        UserWarning, match="'kernel': its bias is left .* 8 rows of input"
    ):
        left = bias_correction(params, small, means)
    np.testing.assert_array_equal(left["bias"], 0)
    under_jit = jax.jit(lambda m: bias_correction(params, small, m))(means)
    np.testing.assert_array_equal(under_jit["bias"], 0)


def test_a_shift_that_few_rows_tell_is_corrected():
    params, small, means, error = layer(offset=1.0, rows=8)
    assert error(bias_correction(params, small, means)) < 0.8 * error(small)


def test_names_with_dots_find_their_bias():
    params = {"layers.0.weight": normal(8, 16), "layers.0.bias": jnp.zeros(8)}

    def fn(params, x):
        return x @ params["layers.0.weight"].T + params["layers.0.bias"][None]

    x = jax.nn.relu(normal(64, 16, seed=1))
    small = jc.compress(jc.weight_quantization(bits=2), params)
    means = jc.observe(fn, params, [x], jc.program.statistics.moments())
    better = jc.quantize.post_training.bias_correction(params, small, means)
    shift = jnp.mean(fn(jc.dense(better), x) - fn(params, x), 0)
    assert float(jnp.abs(shift).max()) < 1e-4
