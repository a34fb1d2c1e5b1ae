# SPDX-License-Identifier: Apache-2.0
"""Training through quantized activations, and the transformations around them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal, put
from models import initialized
from two_layers import cache_size

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, everywhere, operands_only
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.scales import (
    dynamic,
    minmax,
    moving_average,
    of_range,
    percentile,
)

FMT = Int(8, symmetric=False)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def close(a, b, rtol=1e-5, atol=0.0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), a, b)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), use_bias=False)(x))
        x = nn.max_pool(nn.gelu(x + nn.Conv(4, (3, 3))(x)), (2, 2), (2, 2))
        return nn.Dense(3)(x.mean((1, 2)))


IMAGES = normal(4, 8, 8, 3)


@pytest.mark.parametrize("kind", ["dynamic", "fixed"])
def test_the_gradient_is_that_of_the_network_quantized_by_hand(kind):
    model = Cnn()
    params = initialized(model, IMAGES)
    weights = jc.weight_quantization(
        bits=4, granularity=jc.PerChannel(axes=jc.Axes(outputs=-1))
    )
    ranges = dynamic() if kind == "dynamic" else minmax()
    quantized = jc.quantize_activations(
        model.apply, operands_only(ActivationQuantizer(FMT, ranges))
    )
    _, known = jax.jit(quantized.calibrate)(
        params, quantized.init(params, IMAGES), IMAGES
    )

    def by_hand(view, known, x):
        def round_inputs(layer, args, kwargs, context):
            name = "/".join(("params", *context.module.path, "kernel/input"))
            (x,) = args
            if kind == "dynamic":
                return layer(fake_quant(x, FMT), **kwargs)
            low, high = (end.reshape((1,) * x.ndim) for end in known[name][:2])
            scale = of_range(low, high, FMT)
            return layer(fake_quant(x, FMT, scale=lambda *_: scale), **kwargs)

        def intercept(layer, args, kwargs, context):
            if isinstance(context.module, nn.Conv | nn.Dense):
                return round_inputs(layer, args, kwargs, context)
            return layer(*args, **kwargs)

        with nn.intercept_methods(intercept):
            return model.apply(view, x)

    def out_and_grad(forward):
        def loss(params, x):
            out = forward(weights.apply(params, weights.init(params)), x)
            return jnp.mean(out**2), out

        # At data beyond the fixed range, so that some of it is clipped.
        grad = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
        return grad(params, 1.5 * IMAGES)

    ours = out_and_grad(lambda view, x: quantized.frozen(view, known, x)[0])
    equal(ours, out_and_grad(lambda view, x: by_hand(view, known, x)))
    grads, _ = ours
    passed = grads[1] != 0
    assert passed.all() if kind == "dynamic" else 0.5 < passed.mean() < 1


LAYERS = {
    "u": normal(3, 4, 8, seed=1, scale=0.5),
    "w": normal(3, 8, 4, seed=2, scale=0.3),
}
X = normal(8, 4, seed=3)


def quantizer(fn, ranges):
    return jc.quantize_activations(fn, everywhere(ActivationQuantizer(FMT, ranges)))


def scanned(params, x):
    def layer(x, layer):
        return x + jnp.tanh(x @ layer["u"]) @ layer["w"], None

    return jnp.tanh(jax.lax.scan(jax.checkpoint(layer), x, params)[0])


def test_a_scanned_layer_has_the_range_that_it_has_alone():
    def unrolled(params, x):
        for u, w in zip(params["u"], params["w"], strict=True):
            x = x + jnp.tanh(x @ u) @ w
        return jnp.tanh(x)

    def calibrated(fn):
        quantized = quantizer(fn, minmax())
        start = quantized.init(LAYERS, X)
        return jax.jit(quantized.calibrate)(LAYERS, start, X)[1]

    stacked, alone = calibrated(scanned), calibrated(unrolled)
    for i in range(3):
        number = f"#{i}" if i else ""
        before = f"add#{i - 1}" if i > 1 else "add" if i else "input/0"
        for name, same in {
            "u/output": f"u{number}/output",
            "w/input": f"w{number}/input",
            "w/output": f"w{number}/output",
            "add": f"add{number}",
            "add/lhs": before,
        }.items():
            layer = jax.tree.map(lambda x, i=i: x[i], stacked[name])
            close(layer, alone[same])


def test_the_gradient_through_scanned_and_checkpointed_layers():
    def fake(x):
        return fake_quant(x, FMT)

    def by_hand(params, x):
        def layer(x, layer):
            x = fake(x)
            h = fake(jnp.tanh(fake(x @ layer["u"])))
            return fake(x + fake(h @ layer["w"])), None

        return fake(jnp.tanh(jax.lax.scan(layer, fake(x), params)[0]))

    quantized = quantizer(scanned, dynamic())
    known = quantized.init(LAYERS, X)

    def out_and_grad(forward):
        def loss(params):
            out = forward(params, X)
            return jnp.sum(out**2), out

        return jax.jit(jax.grad(loss, has_aux=True))(LAYERS)

    ours = out_and_grad(lambda params, x: quantized.train(params, known, x)[0])
    # A checkpoint computes the layer twice, which XLA may fuse in other ways.
    close(ours, out_and_grad(by_hand), atol=1e-5)


# Integers, so that no order of summation rounds anything.
WHOLE = {
    "u": put(np.round(4 * np.asarray(LAYERS["u"])[0])),
    "w": put(np.round(4 * np.asarray(LAYERS["w"])[0])),
}
BATCH = put(np.round(8 * np.asarray(X)))


def mlp(params, x):
    return jax.nn.relu(x @ params["u"]) @ params["w"]


EXACT = {"minmax": minmax(), "percentile": percentile(0.9)}


@pytest.mark.parametrize("name", EXACT)
def test_ranges_are_those_of_the_whole_batch_however_it_is_split(name):
    quantized = quantizer(mlp, EXACT[name])
    start = quantized.init(WHOLE, BATCH)
    calibrate = jax.jit(quantized.calibrate)
    _, whole = calibrate(WHOLE, start, BATCH)

    def observe(ranges, x):
        out, ranges = calibrate(WHOLE, ranges, x)
        return ranges, out

    split, outs = jax.lax.scan(observe, start, BATCH.reshape(4, 2, 4))
    equal(outs.reshape(8, 4), mlp(WHOLE, BATCH))
    for known in (split, observe(observe(start, BATCH[:2])[0], BATCH[2:])[0]):
        for got, want in zip(known.values(), whole.values(), strict=True):
            equal(EXACT[name].read(got, X), EXACT[name].read(want, X))


@pytest.mark.parametrize("name", EXACT)
def test_ranges_of_a_sharded_batch_are_those_of_the_batch(name):
    quantized = quantizer(mlp, EXACT[name])
    start = quantized.init(WHOLE, BATCH)
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    sharded = jax.device_put(BATCH, spec)
    for mode, same in ((quantized.calibrate, equal), (quantized.train, close)):
        mode = jax.jit(mode)
        out, ranges = jax.block_until_ready(mode(WHOLE, start, sharded))
        assert out.sharding.is_equivalent_to(spec, 2)
        assert all(r.sharding.is_fully_replicated for r in jax.tree.leaves(ranges))
        same((out, ranges), mode(WHOLE, start, BATCH))


def test_networks_and_their_ranges_are_stacked_by_vmap():
    quantized = quantizer(mlp, moving_average())
    one = {name: jnp.stack([x, 2 * x, -x]) for name, x in WHOLE.items()}
    start = jax.vmap(quantized.init, (0, None))(one, BATCH)
    calibrate = jax.jit(jax.vmap(quantized.calibrate, (0, 0, None)))
    out, ranges = calibrate(one, start, BATCH)
    frozen, _ = jax.jit(jax.vmap(quantized.frozen, (0, 0, None)))(one, ranges, BATCH)
    for i in range(3):
        params, fresh, known = jax.tree.map(lambda x, i=i: x[i], (one, start, ranges))
        equal((out[i], known), quantized.calibrate(params, fresh, BATCH))
        alone, _ = quantized.frozen(params, known, BATCH)
        low, high, _ = known["w/output"]
        step, _ = of_range(low, high, FMT)
        # A sum that is rounded in another way may fall to the next code.
        assert jnp.abs(frozen[i] - alone).max() <= 1.01 * step


def test_it_runs_under_a_checkpoint():
    quantized = quantizer(mlp, moving_average())
    start = quantized.init(WHOLE, X)

    def grad(mode):
        def loss(params):
            out, ranges = mode(params, start, X)
            return jnp.sum(out**2), ranges

        return jax.jit(jax.grad(loss, has_aux=True))(WHOLE)

    close(grad(jax.checkpoint(quantized.train)), grad(quantized.train), rtol=1e-6)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(16)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.8)(x)
        return nn.Dense(2)(nn.relu(x))


DATA = normal(32, 4, seed=4)
TARGETS = put(np.sin(2 * np.asarray(DATA)[:, :2]))


def test_weights_and_activations_train_together_and_resume_to_the_bit(tmp_path):
    model = Net()
    training = jc.quantize_activations(
        lambda variables, x: model.apply(variables, x, True, mutable=["batch_stats"]),
        everywhere(),
    )
    evaluation = jc.quantize_activations(
        lambda v, x: model.apply(v, x, False), everywhere()
    )
    weights = jc.weight_quantization(bits=4)
    variables = initialized(model, DATA, False)
    fresh = training.init(variables, DATA)

    def loss_fn(params, batch, *, model_state):
        stats, ranges = model_state
        (out, stats), ranges = training.train(
            {"params": params, **stats}, ranges, batch["x"]
        )
        loss = jnp.mean((out - batch["y"]) ** 2)
        return loss, jc.Aux({}, (stats, ranges))

    init, step = jc.train_step(loss_fn, optax.adam(0.03), weights)

    def start():
        params, stats = variables["params"], variables["batch_stats"]
        return init(params, model_state=({"batch_stats": stats}, fresh))

    state, losses = start(), []
    for i in range(40):
        state, metrics = step(state, {"x": DATA, "y": TARGETS})
        losses.append(float(metrics["loss"]))
        if i == 20:
            jc.save_checkpoint(tmp_path, 20, state)
    assert losses[-1] < 0.4 * losses[0]
    assert cache_size(step) == 1  # pyright: ignore[reportFunctionMemberAccess]
    stats, ranges = state.model_state
    assert sorted(ranges) == sorted(fresh)
    for name, seen in ranges.items():
        assert seen.count == 40 and seen.low < seen.high
        assert name == "input/0" or seen.high != jnp.max(DATA)

    resumed = jc.restore_checkpoint(tmp_path, start())
    for _ in range(21, 40):
        resumed, _ = step(resumed, {"x": DATA, "y": TARGETS})
    equal(resumed, state)

    # What ships: codes for the weights, the running statistics, and frozen ranges.
    shipped = jc.dense(weights.finalize(state.params, state.compression))
    known = {"params": shipped, **stats}
    out, same = jax.jit(evaluation.frozen)(known, ranges, DATA)
    assert jnp.mean((out - TARGETS) ** 2) < 0.5 * losses[0]
    equal(same, ranges)
