# SPDX-License-Identifier: Apache-2.0
"""Learned scales inside of the training step, of weights and of activations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bitwise import same_tree
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, everywhere
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.scales import (
    StatefulScale,
    absmax,
    as_scale,
    lsq,
    lsq_plus,
    pact,
)

X = normal(32, 8)
TARGET = jnp.tanh(X @ normal(8, 3, seed=1))
BATCH = {"x": X, "y": TARGET}
PARAMS = {"kernel": normal(8, 3, seed=2) / 3}
WAYS = {
    "lsq": (Int(3), lsq()),
    "lsq_plus": (Int(3, False), lsq_plus()),
    "pact": (Int(3), pact()),
    "signs": (Int(1), lsq()),
}


def model(params, x):
    return jnp.tanh(x @ params["kernel"])


def loss_fn(params, batch):
    return jnp.mean((model(params, batch["x"]) - batch["y"]) ** 2)


def learned_values(tree):
    found = jax.tree.leaves(tree, is_leaf=lambda x: isinstance(x, jc.Learned))
    return [x.value for x in found if isinstance(x, jc.Learned)]


@pytest.mark.parametrize("name", WAYS)
def test_the_scale_of_weights_is_trained(name):
    fmt, scale = WAYS[name]
    c = jc.weight_quantization(fmt=fmt, scale=scale)
    init, step = jc.train_step(
        loss_fn, optax.adam(0.02), c, learned_tx=optax.adam(0.02)
    )
    state = init(PARAMS)
    before = learned_values(state.compression)
    losses = []
    for _ in range(25):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    after = learned_values(state.compression)
    assert len(before) == len(after) == 1 + (name == "lsq_plus")
    for old, new in zip(before, after, strict=True):
        assert jnp.isfinite(new).all() and (new != old).any()
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert state.compression["kernel"].scale.count == 26
    shipped = c.finalize(state.params, state.compression)
    same_tree(jc.dense(shipped), c.apply(state.params, state.compression))


def test_a_frozen_scale_is_that_of_the_start():
    c = jc.weight_quantization(bits=3, scale=lsq())
    init, step = jc.train_step(loss_fn, optax.adam(0.02), c, learned_tx=optax.sgd(0.0))
    state = init(PARAMS)
    before = learned_values(state.compression)
    for _ in range(3):
        state, _ = step(state, BATCH)
    same_tree(learned_values(state.compression), before)


def quantized_loss(way):
    """A model whose activations learn their scales, in the model state."""
    quantized = jc.quantize_activations(model, everywhere(way))

    def loss(params, batch, model_state):
        out, ranges = quantized.train(params, model_state, batch["x"])
        return jnp.mean((out - batch["y"]) ** 2), jc.Aux(model_state=ranges)

    return quantized, loss


ACTIVATIONS = {
    "lsq": ActivationQuantizer(Int(3), lsq()),
    "lsq_plus": ActivationQuantizer(Int(3, False), lsq_plus()),
    "pact": ActivationQuantizer(Int(3), pact(start=0.8)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_scales_of_activations_are_trained(name, micro_batches):
    quantized, loss = quantized_loss(ACTIVATIONS[name])
    init, step = jc.train_step(
        loss,
        optax.adam(0.02),
        learned_tx=optax.adam(0.02),
        micro_batches=micro_batches,
    )
    state = init(PARAMS, model_state=quantized.init(PARAMS, X))
    state, metrics = step(state, BATCH)
    losses, first = [float(metrics["loss"])], learned_values(state.model_state)
    for _ in range(20):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert np.isfinite(losses).all() and np.mean(losses[-5:]) < 0.7 * losses[0]
    after = learned_values(state.model_state)
    assert (
        len(after) == len(first) == len(state.model_state) * (1 + (name == "lsq_plus"))
    )
    for new in after:
        assert jnp.isfinite(new).all()
    assert any((new != old).any() for old, new in zip(first, after, strict=True))
    for known in state.model_state.values():
        assert known.count == 21 * micro_batches


def test_the_first_array_sets_the_scale_and_no_gradient_does():
    quantized, loss = quantized_loss(ActivationQuantizer(Int(3), pact()))
    init, step = jc.train_step(loss, optax.sgd(0.0), learned_tx=optax.sgd(1.0))
    state = init(PARAMS, model_state=quantized.init(PARAMS, X))
    state, _ = step(state, BATCH)
    bounds = {name: known.scale.value for name, known in state.model_state.items()}
    assert bounds["input/0"] == jnp.abs(X).max()


@pytest.mark.parametrize("parts", [1, 2])
def test_equal_halves_have_the_gradient_of_the_whole(parts):
    """A batch that is the same thing twice, in one part or in two."""
    quantized, loss = quantized_loss(ACTIVATIONS["lsq"])
    half = jax.tree.map(lambda x: x[:16], BATCH)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), half)

    def trained(batch, parts):
        init, step = jc.train_step(loss, optax.sgd(0.1), micro_batches=parts)
        _, known = quantized.calibrate(PARAMS, quantized.init(PARAMS, X), half["x"])
        state, _ = step(init(PARAMS, model_state=known), batch)
        return state.params, learned_values(state.model_state)

    # Of an activation the gradient is made as large as over one example, so it does not
    # depend on how many there are.
    for a, b in zip(
        jax.tree.leaves(trained(half, 1)),
        jax.tree.leaves(trained(twice, parts)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_resumed_is_uninterrupted_to_the_bit(tmp_path):
    quantized, loss = quantized_loss(ACTIVATIONS["lsq_plus"])
    c = jc.weight_quantization(bits=3, scale=lsq())
    init, step = jc.train_step(loss, optax.adam(0.02), c)

    def start():
        return init(PARAMS, model_state=quantized.init(PARAMS, X))

    state = start()
    for _ in range(2):
        state, _ = step(state, BATCH)
    jc.save_checkpoint(tmp_path, 2, state)
    for _ in range(2):
        state, _ = step(state, BATCH)
    resumed = jc.restore_checkpoint(tmp_path, start())
    for _ in range(2):
        resumed, _ = step(resumed, BATCH)
    same_tree(resumed, state)


@pytest.mark.parametrize("name", WAYS)
def test_a_scale_that_has_seen_nothing_reads_nan(name):
    fmt, kept = WAYS[name]
    for shape in ((), (1, 3)):
        state = kept.init(shape, fmt)
        assert state.count == 0
        assert jnp.isnan(kept.read(state, X[:, :3], fmt)[0]).all()  # pyright: ignore[reportArgumentType]
        view = fake_quant(X[:, :3], fmt, scale=as_scale(kept, state))
        assert jnp.isnan(view).all()
        state = kept.observe(state, X[:, :3], fmt)
        assert state.count == 1
        scale, zero_point = kept.read(state, X[:, :3], fmt)
        assert scale.shape == shape and (scale > 0).all()  # pyright: ignore[reportOperatorIssue]
        again = kept.observe(state, 100 * X[:, :3], fmt)
        same_tree(again._replace(count=state.count), state)
        assert (zero_point is None) == fmt.symmetric


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lsq", "lsq_plus", "pact"])
@pytest.mark.parametrize("value", [0.0, -0.7, -1e-30, 1e-45, 1e30])
def test_an_optimizer_that_oversteps_leaves_a_positive_scale(name, value):
    fmt, scale = WAYS[name]
    c = jc.weight_quantization(fmt=fmt, scale=scale)
    params = {"kernel": 30 * PARAMS["kernel"]}
    leaf = c.init(params)["kernel"]

    def state_of(value):
        moved = jc.Learned(jnp.full((1, 3), value))
        return {"kernel": leaf._replace(scale=leaf.scale._replace(scale=moved))}

    shipped = c.finalize(params, state_of(value))["kernel"]
    assert (shipped.scale > 0).all() and jnp.isfinite(shipped.scale).all()
    assert jnp.isfinite(shipped.dense()).all()

    def loss(params, value):
        return jnp.sum(c.apply(params, state_of(value))["kernel"] ** 2)

    grads = jax.grad(loss, (0, 1))(params, jnp.float32(value))
    for grad in jax.tree.leaves(grads):
        assert jnp.isfinite(grad).all() or value == 1e30


def test_zero_points_that_overstep_stay_on_the_grid():
    c = jc.weight_quantization(bits=3, symmetric=False, scale=lsq_plus())
    leaf = c.init(PARAMS)["kernel"]
    for zero in (-50.0, 3.4, 99.0):
        moved = leaf.scale._replace(zero_point=jc.Learned(jnp.full((1, 3), zero)))
        q = c.finalize(PARAMS, {"kernel": leaf._replace(scale=moved)})["kernel"]
        assert q.zero_point.tolist() == [[min(7, max(0, round(zero)))] * 3]


def test_a_start_and_errors():
    c = jc.weight_quantization(bits=4, scale=pact(start=0.5))
    q = jc.compress(c, PARAMS)["kernel"]
    np.testing.assert_allclose(q.scale, 0.5 / 7, rtol=1e-6)
    with pytest.raises(
        ValueError, match="start must be a positive bound or None, got 0"
    ):
        pact(start=0)
    with pytest.raises(ValueError, match=r"no zero point to learn. Or use lsq\(\)"):
        jc.weight_quantization(bits=4, scale=lsq_plus()).init(PARAMS)
    assert isinstance(lsq(), StatefulScale)


def test_lsq_starts_as_in_the_paper():
    q = jc.compress(jc.weight_quantization(bits=4, scale=lsq()), PARAMS)["kernel"]
    want = 2 * np.abs(PARAMS["kernel"]).mean(0, keepdims=True) / 7**0.5
    np.testing.assert_allclose(q.scale, want, rtol=1e-6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_gradient_of_the_step_size_is_scaled_as_in_the_paper(symmetric):
    fmt = Int(3, symmetric)
    w, kept = PARAMS["kernel"], lsq()
    state = kept.observe(kept.init((1, 1), fmt), w, fmt)

    def total(value):
        moved = state._replace(scale=jc.Learned(value))
        way = as_scale(kept, moved)
        return fake_quant(w, fmt, scale=way, gradient=kept.gradient).sum()

    got = jax.grad(total)(state.scale.value)
    v = np.asarray(w / state.scale.value, np.float64)
    low, high = (-3, 3) if symmetric else (0, 7)
    slack = 0.5 if symmetric else 1.0
    level = np.clip(np.round(v), low, high)
    inside = (v >= low - slack) & (v <= high + slack)
    want = np.where(inside, level - v, level).sum() / (w.size * high) ** 0.5
    np.testing.assert_allclose(got, [[want]], rtol=1e-4)


def test_a_state_of_ranges_can_be_donated():
    quantized, loss = quantized_loss(ActivationQuantizer(Int(4)))
    init, step = jc.train_step(loss, optax.sgd(0.1), donate=True)
    state = init(
        jax.tree.map(jnp.copy, PARAMS), model_state=quantized.init(PARAMS, BATCH["x"])
    )
    for _ in range(2):
        state, metrics = step(state, BATCH)
    assert jnp.isfinite(metrics["loss"])


@pytest.mark.parametrize("scale", [lsq, lsq_plus])
def test_the_start_is_searched_for_once(scale):
    ran = []

    def start(x, tiles, fmt):
        jax.debug.callback(lambda: ran.append(1))
        return absmax(x, tiles, fmt)

    c = jc.weight_quantization(bits=4, symmetric=scale is lsq, scale=scale(start=start))
    params = {"kernel": jnp.arange(12.0).reshape(4, 3)}
    update = jax.jit(c.update)
    state = c.init(params)
    for _ in range(3):
        _, state = update(params, state)
    jax.effects_barrier()
    assert len(ran) == 1
