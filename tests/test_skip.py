# SPDX-License-Identifier: Apache-2.0
"""A batch that is not finite changes no state of a compressor, nor of the model."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress._skip import all_finite

PARAMS = {"kernel": put(np.linspace(-1, 1, 32).reshape(4, 8))}
GOOD = {"x": put(np.linspace(-1, 2, 8).reshape(2, 4))}
BAD = {"x": GOOD["x"].at[0, 0].set(jnp.nan)}
COMPRESSORS = {
    "movement": lambda: jc.movement_pruning(0.5),
    "averaged score": lambda: jc.prune.prune(
        0.5, score=jc.prune.scores.averaged(jc.prune.scores.saliency)
    ),
    "averaged scale": lambda: jc.weight_quantization(
        bits=4, scale=jc.quantize.scales.moving_average()
    ),
    "learned scale": lambda: jc.weight_quantization(
        bits=4, scale=jc.quantize.scales.lsq()
    ),
}


def loss_fn(params, batch):
    return jnp.mean((batch["x"] @ params["kernel"] - 1) ** 2)


def equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.mark.parametrize("name", COMPRESSORS)
def test_a_skipped_batch_might_never_have_been(name):
    tx = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=9)
    init, step = jc.train_step(loss_fn, tx, COMPRESSORS[name]())
    start, _ = step(init(PARAMS), GOOD)
    skipped, metrics = step(start, BAD)
    assert np.isnan(metrics["loss"])
    equal((skipped.params, skipped.compression), (start.params, start.compression))
    after, once = step(skipped, GOOD)[0], step(start, GOOD)[0]
    equal((after.params, after.compression), (once.params, once.compression))


@pytest.mark.parametrize("name", ["movement", "averaged scale"])
def test_a_skipped_batch_in_a_foreign_loop(name):
    tx = optax.apply_if_finite(
        jc.wrap_optimizer(optax.sgd(0.1), COMPRESSORS[name]()), 9
    )
    inside = jc.wrap_optimizer(
        optax.apply_if_finite(optax.sgd(0.1), 9), COMPRESSORS[name]()
    )
    for wrapped in (tx, inside):

        @jax.jit
        def theirs(params, state, batch, wrapped=wrapped):
            grads = jax.grad(loss_fn)(params, batch)
            updates, state = wrapped.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        params, state = theirs(PARAMS, wrapped.init(PARAMS), GOOD)
        same, skipped = theirs(params, state, BAD)
        equal(same, params)
        equal(jc.unwrap(skipped), jc.unwrap(state))


def test_ranges_and_batch_statistics_survive():
    quantized = jc.quantize_activations(lambda p, x: x @ p["kernel"])

    def loss(params, batch, *, model_state):
        out, ranges = quantized.train(params, model_state, batch["x"])
        return jnp.mean(out**2), jc.Aux(model_state=ranges)

    tx = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=9)
    init, step = jc.train_step(loss, tx)
    ranges = quantized.init(PARAMS, GOOD["x"])
    start, _ = step(init(PARAMS, model_state=ranges), GOOD)
    skipped, _ = step(start, BAD)
    equal(skipped.model_state, start.model_state)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("shape", [(), (7,), (300, 5), (3, 3, 4, 2)])
def test_one_value_that_is_not_finite_is_found_and_extreme_ones_are_not(dtype, shape):
    most = float(jnp.finfo(dtype).max)
    x = np.full(shape, most, dtype)
    least = np.full(shape, jnp.finfo(dtype).smallest_subnormal, dtype)
    check = jax.jit(all_finite)
    assert check([jnp.asarray(x), jnp.asarray(-x), jnp.asarray(least)])
    for value in (np.nan, np.inf, -np.inf):
        bad = x.copy()
        bad[(-1,) * len(shape)] = value
        assert not check([jnp.asarray(x), jnp.asarray(bad)])
        assert not check([jnp.asarray(bad), jnp.asarray(least)])


def test_trees_without_floats_are_finite():
    assert all_finite({}) and all_finite([jnp.arange(3)])
