# SPDX-License-Identifier: Apache-2.0
"""Training with the size of the file in the loss."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcompress as jc
from jaxcompress._penalty import penalty_of
from jaxcompress.pack import inspect

ROWS, COLUMNS = 60, 40


def task(seed=0):
    """Parameters near a sparse matrix, and inputs: the loss asks for its products."""
    draws = np.random.default_rng(seed)
    target = draws.normal(size=(ROWS, COLUMNS)) * (draws.random((ROWS, COLUMNS)) < 0.1)
    params = {
        "kernel": jnp.asarray(target + 0.1 * draws.normal(size=target.shape), "f"),
        "bias": jnp.zeros(COLUMNS),
    }
    x = draws.normal(size=(128, ROWS))
    return params, (jnp.asarray(x, "f"), jnp.asarray(x @ target, "f"))


def loss_fn(view, batch):
    x, y = batch
    return jnp.mean((x @ view["kernel"] + view["bias"][None] - y) ** 2)


def train(compressor, steps=150, tx=None, loss=loss_fn):
    params, batch = task()
    tx = optax.adam(3e-3) if tx is None else tx
    init, step = jc.train_step(loss, tx, compressor)
    state, metrics = init(params), {}
    for _ in range(steps):
        state, metrics = step(state, batch)
    return state, metrics


def rate_state(state):
    return rate_of(state.compression)


def rate_of(compression):
    def is_rate(x):
        return isinstance(x, jc.rate.RateState)

    nodes = jax.tree.leaves(compression, is_leaf=is_rate)
    return next(node for node in nodes if is_rate(node))


def file_bytes(tmp_path, tree):
    path = tmp_path / "network.jc"
    jc.save(path, tree)
    return os.path.getsize(path)


def payload_bytes(tmp_path, tree):
    """What leaves take in the file, without names and manifest."""
    path = tmp_path / "leaves.jc"
    jc.save(path, tree)
    return sum(entry.nbytes for entry in inspect(path).entries)


@pytest.mark.slow
def test_a_larger_multiplier_makes_a_smaller_file(tmp_path):
    sizes = []
    for multiplier in (0.0, 0.1, 3.0):
        c = jc.rate.entropy_constrained(multiplier, where="*")
        state, metrics = train(c)
        shipped = c.finalize(state.params, state.compression)
        sizes.append(file_bytes(tmp_path, shipped))
        assert (float(metrics["rate"]) == 0) == (multiplier == 0)
    assert sizes[0] > 1.1 * sizes[1] > 1.1 * 1.1 * sizes[2]


def test_the_loss_of_a_step_is_the_task_and_the_rate():
    c = jc.rate.entropy_constrained(0.2)
    params, batch = task()
    init, step = jc.train_step(loss_fn, optax.sgd(0.0), c)
    state = init(params)
    view = c.apply(params, state.compression)
    _, metrics = step(state, batch)
    bits = jc.rate.measure(c, params, state.compression)
    expected = 0.2 * bits / (ROWS * COLUMNS)
    np.testing.assert_allclose(metrics["rate"], expected, rtol=1e-5)
    np.testing.assert_allclose(
        metrics["loss"], loss_fn(view, batch) + expected, rtol=1e-5
    )


@pytest.mark.slow
def test_a_size_that_is_asked_for_is_held():
    c = jc.rate.entropy_constrained(target_bytes=260, every=5)
    state, _ = train(c, steps=1500, tx=optax.adam(3e-3))
    bits = jc.rate.measure(c, state.params, state.compression)
    assert float(bits) / 8 == pytest.approx(260, rel=0.06)


def test_a_schedule_sweeps_the_multiplier():
    c = jc.rate.entropy_constrained(optax.linear_schedule(0.0, 0.4, 40), every=10)
    state, _ = train(c, steps=20)
    assert float(rate_state(state).multiplier.value) == pytest.approx(0.2)


def test_pruned_weights_stay_zero_and_take_no_slope():
    pruner = jc.magnitude_pruning(0.8)
    c = jc.chain(pruner, jc.rate.entropy_constrained(0.02))
    state, metrics = train(c)
    assert "rate" in metrics
    view = c.apply(state.params, state.compression)["kernel"]
    assert float(jnp.mean(view == 0)) >= 0.8
    shipped = c.finalize(state.params, state.compression)
    np.testing.assert_array_equal(jc.dense(shipped)["kernel"], view)


@pytest.mark.slow
def test_factors_are_compressed_like_any_leaf():
    params, _ = task()
    factors = jc.factorize(params, rank=8)
    c = jc.rate.entropy_constrained(2.0, where="*kernel*")
    init, step = jc.train_step(
        lambda view, batch: loss_fn(jc.dense(view), batch), optax.adam(3e-3), c
    )
    state = init(factors)
    before = jc.rate.measure(c, state.params, state.compression)
    batch = task()[1]
    for _ in range(60):
        state, _ = step(state, batch)
    after = jc.rate.measure(c, state.params, state.compression)
    assert after < 0.8 * before


def test_groups_with_multipliers_of_their_own_add_up():
    both = jc.partition(
        {
            "kernel": jc.rate.entropy_constrained(0.1, where="*"),
            "bias": jc.rate.entropy_constrained(0.3, where="*"),
        }
    )
    params, _ = task()
    state = both.init(params)
    alone = [
        jc.rate.entropy_constrained(m, where=path)
        for path, m in (("kernel", 0.1), ("bias", 0.3))
    ]
    terms = [penalty_of(c, params, c.init(params)) for c in alone]
    np.testing.assert_allclose(penalty_of(both, params, state), sum(terms), 1e-5)
    measured = [jc.rate.measure(c, params, c.init(params)) for c in alone]
    np.testing.assert_allclose(
        jc.rate.measure(both, params, state), sum(measured), 1e-5
    )


@pytest.mark.slow
def test_an_optimizer_takes_the_rate_into_its_gradient():
    """Steps that nothing learns serve a loop that cannot train them."""
    scale = jc.quantize.scales.held(
        jc.quantize.scales.fixed(jnp.full((1, 1), 0.1), None)
    )
    params, batch = task()
    sizes = []
    for multiplier in (0.0, 3.0):
        c = jc.rate.entropy_constrained(multiplier, scale=scale)
        tx = jc.wrap_optimizer(optax.sgd(0.05), c)
        opt_state, view = tx.init(params), params

        @jax.jit
        def step(view, opt_state, tx=tx):
            grads = jax.grad(loss_fn)(view, batch)
            updates, opt_state = tx.update(grads, opt_state, view)
            return optax.apply_updates(view, updates), opt_state

        for _ in range(60):
            view, opt_state = step(view, opt_state)
        sizes.append(float(jc.rate.measure(c, *jc.unwrap(opt_state))))
    assert sizes[1] < 0.9 * sizes[0]


def test_a_batch_that_is_not_finite_changes_nothing():
    c = jc.rate.entropy_constrained(target_bytes=300, every=1)
    params, (x, y) = task()
    init, step = jc.train_step(loss_fn, optax.apply_if_finite(optax.sgd(0.1), 5), c)
    state, _ = step(init(params), (x, y))
    after, _ = step(state, (x.at[0, 0].set(jnp.nan), y))
    for a, b in zip(
        jax.tree.leaves(state.compression),
        jax.tree.leaves(after.compression),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_a_metric_of_the_same_name_is_refused():
    def loss(view, batch):
        return {"task": loss_fn(view, batch), "rate": jnp.zeros(())}

    with pytest.raises(ValueError, match="both have a metric named 'rate'"):
        train(jc.rate.entropy_constrained(0.1), steps=1, loss=loss)


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({}, ValueError, "pass multiplier= or target_bytes=."),
        ({"multiplier": 1.0, "target_bytes": 9}, ValueError, "not both"),
        ({"multiplier": -0.1}, ValueError, "multiplier must be a finite number of at"),
        ({"multiplier": float("nan")}, ValueError, "at least 0, got nan"),
        ({"multiplier": "large"}, TypeError, "multiplier must be a number"),
        ({"target_bytes": -1}, ValueError, "target_bytes must be a finite number"),
        ({"multiplier": 1.0, "bits": 17}, ValueError, "bits must be 2 to 8, got 17"),
        ({"multiplier": 1.0, "bits": 1}, ValueError, "bits must be 2 to 8, got 1"),
        ({"multiplier": 1.0, "every": 0}, ValueError, "every must be at least 1"),
        (
            {"multiplier": 1.0, "scale": jc.quantize.scales.absmax},
            TypeError,
            "scale must be a scale with a state",
        ),
    ],
)
def test_unfit_arguments_are_refused(kwargs, error, text):
    with pytest.raises(error, match=re.escape(text)):
        jc.rate.entropy_constrained(**kwargs)


def test_a_traced_multiplier_is_refused():
    with pytest.raises(TypeError, match="pass an optax schedule"):
        jax.jit(lambda m: jc.rate.entropy_constrained(m) and m)(0.1)


def test_a_size_that_zeros_exceed_is_refused_with_the_least():
    params, _ = task()
    with pytest.raises(ValueError, match=r"these leaves take \d+ bytes even if every"):
        jc.rate.entropy_constrained(target_bytes=3).init(params)


def test_a_size_is_checked_while_init_is_traced():
    params, _ = task()
    state = jax.jit(jc.rate.entropy_constrained(target_bytes=300).init)(params)
    assert float(rate_of(state).bits) > 0
    with pytest.raises(ValueError, match="even if every weight is zero"):
        jax.jit(jc.rate.entropy_constrained(target_bytes=3).init)(params)


def test_a_size_that_floats_would_take_is_refused():
    params, _ = task()
    with pytest.raises(ValueError, match="asks for nothing: as float32 these leaves"):
        jc.rate.entropy_constrained(target_bytes=10**9).init(params)


def test_a_size_that_was_missed_is_said():
    params, _ = task()
    c = jc.rate.entropy_constrained(target_bytes=100)
    state = c.init(params)
    with pytest.warns(UserWarning, match=r"take \d+ bytes, but target_bytes=100 was"):
        c.finalize(params, state)


@pytest.mark.parametrize(
    "kwargs",
    [{"multiplier": 0.1}, {"multiplier": lambda count: 0.3}, {"target_bytes": 200}],
    ids=["a number", "a schedule", "a size"],
)
def test_the_state_of_another_multiplier_is_refused(kwargs):
    """It would go on with the other one, silently."""
    params, _ = task()
    state = jc.rate.entropy_constrained(**kwargs).init(params)
    c = jc.rate.entropy_constrained(0.3)
    with pytest.raises(ValueError, match="but is read as 'multiplier_0.3'"):
        c.update(params, state)
    with pytest.raises(ValueError, match="the state was made for"):
        c.finalize(params, state)


def test_a_schedule_of_vectors_is_refused():
    c = jc.rate.entropy_constrained(lambda count: jnp.ones(2))
    with pytest.raises(ValueError, match="must return a scalar, got an array of shape"):
        c.init(task()[0])


def test_measure_takes_the_state_of_the_compressor():
    c = jc.rate.entropy_constrained(0.1)
    state, _ = train(c, steps=1)
    with pytest.raises(TypeError, match=r"Pass state.params and state.compression"):
        jc.rate.measure(c, state.params, state)


def test_a_network_without_weights_is_refused():
    with pytest.raises(ValueError, match="selected none of 1 leaves"):
        jc.rate.entropy_constrained(0.1).init({"bias": jnp.zeros(4)})


@pytest.mark.slow
def test_the_rate_of_a_trained_network_is_its_file(tmp_path):
    c = jc.rate.entropy_constrained(0.05, where="*")
    draws = np.random.default_rng(0)
    params = {
        f"layer{i}": {
            "kernel": jnp.asarray(draws.normal(size=shape) / shape[0] ** 0.5, "f"),
            "bias": jnp.zeros(shape[1]),
        }
        for i, shape in enumerate([(200, 300), (300, 100), (100, 10)])
    }
    x = jnp.asarray(draws.normal(size=(256, 200)), "f")
    y = jnp.asarray(draws.normal(size=(256, 10)), "f")

    def loss(view, batch):
        h = batch[0]
        for i in range(3):
            h = h @ view[f"layer{i}"]["kernel"] + view[f"layer{i}"]["bias"][None]
            h = jnp.tanh(h)
        return jnp.mean((h - batch[1]) ** 2)

    init, step = jc.train_step(loss, optax.adam(1e-3), c)
    state = init(params)
    for _ in range(600):
        state, _ = step(state, (x, y))
    rate = float(jc.rate.measure(c, state.params, state.compression)) / 8
    shipped = c.finalize(state.params, state.compression)
    assert rate == pytest.approx(payload_bytes(tmp_path, shipped), rel=0.02)
