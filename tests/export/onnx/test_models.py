# SPDX-License-Identifier: Apache-2.0
"""Whole networks of several libraries, as floats and as the integers of their training."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from onnx_checks import ONNX, emit, longer, onnx

import jaxcompress as jc
from jaxcompress import export
from jaxcompress.export import targets
from jaxcompress.program.dataflow import Constant, dataflow

KEY = jax.random.key(0)


def frozen_norm():
    return nn.BatchNorm(use_running_average=True)


class ResNet(nn.Module):
    """Two stages with batch norms."""

    @nn.compact
    def __call__(self, x):
        x = nn.relu(frozen_norm()(nn.Conv(8, (3, 3), use_bias=False)(x)))
        for width, stride in ((8, 1), (16, 2)):
            y = nn.Conv(width, (3, 3), strides=stride, use_bias=False)(x)
            y = nn.Conv(width, (3, 3), use_bias=False)(nn.relu(frozen_norm()(y)))
            y = frozen_norm()(y)
            if x.shape != y.shape:
                x = frozen_norm()(nn.Conv(width, (1, 1), strides=stride)(x))
            x = nn.relu(x + y)
        return nn.Dense(5)(x.mean((1, 2)))


class MobileBlock(nn.Module):
    """Depthwise convolution, squeeze and excite."""

    @nn.compact
    def __call__(self, x):
        y = nn.relu6(nn.Conv(16, (1, 1))(x))
        y = nn.relu6(nn.Conv(16, (3, 3), feature_group_count=16)(y))
        gate = nn.sigmoid(nn.Dense(16)(nn.relu(nn.Dense(4)(y.mean((1, 2))))))
        return x + nn.Conv(x.shape[-1], (1, 1))(y * gate[:, None, None])


class Encoder(nn.Module):
    """A transformer over token ids."""

    @nn.compact
    def __call__(self, ids):
        places = self.param("places", nn.initializers.normal(1.0), (1, ids.shape[1], 8))
        x = nn.Embed(20, 8)(ids) + places
        x = x + nn.MultiHeadDotProductAttention(2)(nn.LayerNorm()(x))
        x = x + nn.Dense(8)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(x))))
        return nn.log_softmax(nn.Dense(3)(nn.LayerNorm()(x)[:, 0]))


class Recurrent(nn.Module):
    """An LSTM, whose loop is unrolled."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(nn.RNN(nn.LSTMCell(6))(x))


def of_linen(module, x):
    """Return the function of a module, its parameters, and data."""
    shapes = jax.eval_shape(module.init, KEY, x)
    return module.apply, filled(shapes), x


def filled(shapes):
    """Draw parameters without compiling initializers; variances are positive."""
    rng = np.random.default_rng(0)

    def draw(x):
        scaled = rng.normal(size=x.shape) / np.sqrt(np.prod(x.shape[:-1]))
        return jnp.asarray(np.abs(scaled) + 0.1 if x.ndim == 1 else scaled, x.dtype)

    return jax.tree.map(draw, shapes)


def of_nnx():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 8, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(8, use_running_average=True, rngs=rngs)
            self.dense = nnx.Linear(8, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.max_pool(nnx.relu(self.norm(self.conv(x))), (2, 2), (2, 2))
            return self.dense(x.mean((1, 2)))

    abstract = nnx.eval_shape(lambda: Model(nnx.Rngs(0)))
    definition, shapes = nnx.split(abstract)
    fn = lambda params, x: nnx.merge(definition, params)(x)  # noqa: E731
    return fn, filled(shapes), IMAGES


def of_equinox():
    def model(key):
        return eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(3, 8, 3, padding=1, key=key),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.MaxPool2d(2, 2),
                eqx.nn.Conv2d(8, 8, 3, groups=2, key=key),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(32, 5, key=key),
            ]
        )

    shapes, static = eqx.partition(
        eqx.filter_eval_shape(model, KEY), lambda x: isinstance(x, jax.ShapeDtypeStruct)
    )
    params = filled(shapes)
    return lambda params, x: jax.vmap(eqx.combine(params, static))(x), params, IMAGES


RNG = np.random.default_rng(1)
IMAGES = RNG.normal(size=(3, 8, 8, 3)).astype(np.float32)
SERIES = RNG.normal(size=(3, 4, 5)).astype(np.float32)
IDS = RNG.integers(0, 20, (3, 6)).astype(np.int32)
NETWORKS = {
    "resnet": lambda: of_linen(ResNet(), IMAGES),
    "mobile": lambda: of_linen(MobileBlock(), IMAGES),
    "encoder": lambda: of_linen(Encoder(), IDS),
    "recurrent": lambda: of_linen(Recurrent(), SERIES),
    "nnx": of_nnx,
    "equinox": lambda: (*of_equinox()[:2], IMAGES.transpose(0, 3, 1, 2)),
}
# Transposes beyond these would be moves of activations that no one asked for.
TRANSPOSES = {"resnet": 1, "mobile": 2, "encoder": 4, "nnx": 1, "recurrent": 1}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_floats(name):
    fn, params, x = NETWORKS[name]()
    flow = dataflow(fn, params, (x[:1],), any_batch=True)
    assert not flow.fixed
    model = emit(flow.graph).model
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Transpose") == TRANSPOSES.get(name, 0)
    data = longer(x)
    (got,) = ONNX.load(model.SerializeToString(), 1)(data)
    np.testing.assert_allclose(got, jax.jit(fn)(params, data), rtol=1e-4, atol=1e-5)


LONG = [
    pytest.param(n, marks=pytest.mark.slow)
    for n in ("equinox", "mobile", "nnx", "recurrent", "resnet")
]


@pytest.mark.parametrize("name", ["encoder", *LONG])
def test_networks_of_integers(name):
    fn, params, x = NETWORKS[name]()
    policy = targets.onnxruntime.policy
    axes = jc.weight_axes(fn, params, x)
    per_output = jc.quantize.PerChannel(axes=axes)
    eight = jc.weight_quantization(bits=8, granularity=per_output, where=axes)
    packed = jc.compress(eight, params)
    dense = jc.dense(packed)
    quantized = jc.quantize_activations(fn, policy)
    _, ranges = jax.jit(quantized.calibrate)(dense, quantized.init(dense, x), x)
    flow = dataflow(fn, packed, (x,), policy=policy, ranges=ranges, any_batch=True)
    content = emit(flow.graph).model.SerializeToString()
    expected, _ = jax.jit(quantized.frozen)(dense, ranges, x)
    (got,) = ONNX.load(content, 1)(np.asarray(x))
    step = [op.params["scale"] for op in flow.graph.points()][-1]
    np.testing.assert_allclose(got, expected, atol=2.01 * step)
    # Products of two activations stay floats, but one may run on integers all the same.
    count = sum(
        op.primitive in ("conv_general_dilated", "dot_general")
        and any(isinstance(a, Constant) for a in op.ins)
        for op in flow.graph.operations
    )
    operators = ONNX.operators(content)
    assert sum(operators.get(kind, 0) for kind in ONNX.products) >= count


@pytest.mark.slow
def test_scopes_with_dots_do_not_make_equal_names(tmp_path):
    def fn(params, x):
        y = jnp.einsum("...ab,...bc->...ac", x, x)
        return jnp.einsum(
            "...ab,bc->...ac", jnp.einsum("...ab,...bc->...ac", y, x), params
        )

    params, x = jnp.eye(3), jnp.arange(18.0).reshape(2, 3, 3) / 9
    path = tmp_path / "a.onnx"
    export.onnx(fn, params, None, (x,), path)
    np.testing.assert_allclose(export.run(path, x)[0], fn(params, x), rtol=1e-5)
