# SPDX-License-Identifier: Apache-2.0
"""Shared values with the size of the file in the loss."""

import os
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress.rate._shared_values import _position

DRAWS = np.random.default_rng(0)
TARGET = DRAWS.normal(size=(60, 40)) * (DRAWS.random((60, 40)) < 0.1)
PARAMS = {"kernel": put(TARGET + 0.1 * DRAWS.normal(size=TARGET.shape))}
X = DRAWS.normal(size=(128, 60))
BATCH = put(X), put(X @ TARGET)


def loss_fn(view, batch):
    x, y = batch
    return jnp.mean((x @ view["kernel"] - y) ** 2)


def train(compressor, steps=150):
    init, step = jc.train_step(loss_fn, optax.adam(3e-3), compressor)
    state = init(PARAMS)
    for _ in range(steps):
        state, metrics = step(state, BATCH)
    return state, metrics


def test_a_price_makes_the_file_smaller_and_the_rate_is_its_size(tmp_path):
    path, sizes = tmp_path / "network.jc", []
    for multiplier in (0.0, 0.5):
        c = jc.rate.entropy_constrained_sharing(9, multiplier)
        state, metrics = train(c)
        shipped = c.finalize(state.params, state.compression)
        assert isinstance(shipped["kernel"], jc.Codebook)
        np.testing.assert_array_equal(
            jc.dense(shipped)["kernel"],
            c.apply(state.params, state.compression)["kernel"],
        )
        jc.save(path, shipped)
        rate = float(jc.rate.measure(c, state.params, state.compression)) / 8
        names = 120  # and manifest, of one leaf
        assert rate == pytest.approx(os.path.getsize(path) - names, abs=40)
        sizes.append(rate)
        assert (float(metrics["rate"]) > 0) == (multiplier > 0)
    assert sizes[1] < 0.6 * sizes[0]


def test_positions_round_to_the_nearest_value_counted_from_zero():
    values = put([-1.5, -0.25, 0.0, 0.5, 2.0])
    x = normal(200, seed=1)
    positions = _position(x, values)
    nearest = np.abs(np.asarray(x)[:, None] - np.asarray(values)).argmin(1)
    clipped = np.clip(np.round(positions), -2, 2)
    np.testing.assert_array_equal(clipped, nearest - 2)
    slopes = jax.grad(lambda x: _position(x, values).sum())(put([-1.0, 0.1, 1.0, 9.0]))
    np.testing.assert_allclose(slopes, [0.8, 2.0, 1 / 1.5, 1 / 1.5], rtol=1e-6)


def test_values_that_nothing_needs_stay_where_they_are():
    c = jc.rate.entropy_constrained_sharing(31, 0.1, every=1)
    state = c.init(PARAMS)
    _, after = c.update(PARAMS, state)
    before, moved = (
        jax.tree.leaves(s, is_leaf=lambda x: isinstance(x, jc.rate.RateState))[0]
        for s in (state, after)
    )
    old, new = (np.asarray(s.inner.centroids["kernel"]) for s in (before, moved))
    np.testing.assert_array_equal(old[[0, 30]], new[[0, 30]])  # 15 deviations away
    assert new[15] == 0 and not np.array_equal(old, new)


def test_a_size_is_asked_for_and_a_missed_one_said():
    c = jc.rate.entropy_constrained_sharing(5, target_bytes=100)
    state = c.init(PARAMS)
    with pytest.warns(UserWarning, match=r"but target_bytes=100 was"):
        c.finalize(PARAMS, state)
    with pytest.raises(ValueError, match="even if every weight is zero"):
        jc.rate.entropy_constrained_sharing(100, target_bytes=3).init(PARAMS)


@pytest.mark.parametrize(
    ("clusters", "kwargs", "text"),
    [
        (2, {"multiplier": 0.1}, "clusters must be 3 to 127 values, got 2."),
        (128, {"multiplier": 0.1}, "clusters must be 3 to 127 values, got 128."),
        (5, {}, "pass multiplier= or target_bytes=."),
        (5, {"multiplier": 0.1, "every": 0}, "every must be at least 1"),
    ],
)
def test_unfit_arguments_are_refused(clusters, kwargs, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        jc.rate.entropy_constrained_sharing(clusters, **kwargs)


def test_leaves_of_zeros_and_of_few_weights_are_compressed():
    params = {"zeros": jnp.zeros((4, 4)), "one": jnp.ones((1, 1))}
    c = jc.rate.entropy_constrained_sharing(3, 0.1, where="*")
    state = c.init(params)
    assert jnp.isfinite(jc.rate.measure(c, params, state))
    shipped = jc.dense(c.finalize(params, state))
    assert not shipped["zeros"].any() and shipped["one"] == 1


def test_leaves_of_zeros_learn():
    params = {"kernel": PARAMS["kernel"], "bias": jnp.zeros(40)}

    def loss(view, batch):
        x, y = batch
        return jnp.mean((x @ view["kernel"] + view["bias"][None] - y - 1) ** 2)

    for c in (
        jc.rate.entropy_constrained_sharing(5, 0.01, where="*", every=5),
        jc.weight_sharing(5, where="*"),
    ):
        init, step = jc.train_step(loss, optax.adam(0.02), c)
        state = init(params)
        for _ in range(100):
            state, _ = step(state, BATCH)
        assert float(c.apply(state.params, state.compression)["bias"].min()) > 0.5


@pytest.mark.parametrize("scale", [1e-30, 1e20, 1e38])
def test_weights_of_any_magnitude_keep_finite_values(scale):
    params = {"kernel": put(scale * np.clip(np.asarray(normal(8, 8)), -3, 3))}
    c = jc.rate.entropy_constrained_sharing(9, 0.1)
    values = c.finalize(params, c.init(params))["kernel"]
    assert (
        jnp.isfinite(values.centroids).all() and (np.diff(values.centroids) > 0).all()
    )
    assert values.dense().any()


def test_a_schedule_that_is_negative_is_refused():
    for make in (
        jc.rate.entropy_constrained,
        lambda m: jc.rate.entropy_constrained_sharing(5, m),
    ):
        with pytest.raises(ValueError, match=r"the schedule gives -1\.0 at count 0"):
            make(lambda count: -1.0).init(PARAMS)
