# SPDX-License-Identifier: Apache-2.0
"""What a loss may return and be given: means that add up, terms, schedules, teachers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal, put
from two_layers import BATCH, PARAMS, cache_size, equal, forward, loss_fn, small

import jaxcompress as jc
from jaxcompress import distill

# 5 of the 12 examples count, unequally many of them in each third.
REAL = put(np.isin(np.arange(12), [0, 1, 2, 3, 9]), bool)
PADDED = {
    "x": put(np.where(REAL[:, None], BATCH["x"], np.nan)),
    "y": BATCH["y"],
    "real": REAL,
}


def padded_loss(params, batch):
    x = jnp.where(batch["real"][:, None], batch["x"], 0)
    errors = jnp.mean((forward(params, x) - batch["y"]) ** 2, -1)
    return jc.Mean.of(errors, batch["real"])


def one_step(loss, batch, parts=1, **settings):
    init, step = jc.train_step(
        loss, optax.sgd(0.1), small(), micro_batches=parts, **settings
    )
    return step(init(PARAMS), batch)


def close(a, b):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b
    )


def test_a_mean_over_unequal_micro_batches_is_that_of_the_whole_batch():
    only = {"x": BATCH["x"][REAL], "y": BATCH["y"][REAL]}
    want, metrics = one_step(loss_fn, only)
    for parts in (1, 3):
        got, found = one_step(padded_loss, PADDED, parts)
        close(got.params, want.params)
        np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=1e-5)

    def means_of_parts(params, batch):  # the mistake that Mean is for
        return padded_loss(params, batch).value

    biased, _ = one_step(means_of_parts, PADDED, 3)
    move = np.abs(biased.params["b"]["bias"] - want.params["b"]["bias"])
    assert move.max() > 1e-2


def test_terms_are_added_and_each_is_a_metric():
    def loss(params, batch):
        errors = jnp.mean((forward(params, batch["x"]) - batch["y"]) ** 2, -1)
        weights = jnp.arange(12.0)[: len(errors)]
        terms = {"labels": jc.Mean.of(errors, batch["w"]), "scale": 0.1 * errors.max()}
        metrics = {
            "worst": jc.Mean(errors.sum(), weights.size),
            "three": jnp.array(3.0),
        }
        return terms, jc.Aux(metrics=metrics)

    batch = {**BATCH, "w": jnp.arange(12.0)}
    _, whole = one_step(loss, batch)
    errors = jnp.mean((forward(small_view(), BATCH["x"]) - BATCH["y"]) ** 2, -1)
    want = np.average(errors, weights=np.arange(12))
    np.testing.assert_allclose(whole["labels"], want, rtol=1e-5)
    np.testing.assert_allclose(whole["loss"], want + 0.1 * errors.max(), rtol=1e-5)
    _, split = one_step(loss, batch, 4)
    np.testing.assert_allclose(split["labels"], want, rtol=1e-5)
    np.testing.assert_allclose(split["worst"], errors.mean(), rtol=1e-5)
    assert split["three"] == 3 and set(split) == {
        "loss", "labels", "scale", "worst", "three",
    }  # fmt: skip


def small_view():
    c = small()
    return c.apply(PARAMS, c.init(PARAMS))


def test_a_mean_of_nothing_is_zero_and_counts_are_not_rounded():
    none = jc.Mean.of(jnp.full(3, jnp.nan), jnp.zeros(3, bool))
    assert none.value == 0
    grads = jax.grad(lambda x: jc.Mean.of(x, jnp.zeros(3)).value)(jnp.ones(3))
    assert not grads.any()
    half = jc.Mean.of(jnp.ones(1001, jnp.bfloat16), None)
    assert half.weight == 1001 and half.value == 1
    with pytest.raises(ValueError, match="one weight per value"):
        jc.Mean.of(jnp.ones((2, 3)), jnp.ones(2, bool))


def test_a_masked_loss_is_not_averaged_over_its_padding():
    s, t = (normal(12, 4, seed=i) for i in range(2))
    losses = distill.kl(s, t, where=REAL)
    with pytest.raises(TypeError, match="'where'"):
        jc.Mean.of(losses)  # pyright: ignore[reportCallIssue]
    want = distill.kl(s[REAL], t[REAL]).mean()
    np.testing.assert_allclose(jc.Mean.of(losses, REAL).value, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda p, b: {"loss": 1.0, "kd": 1.0}, "name 'loss' is used twice"),
        (lambda p, b: ({"a": 1.0}, jc.Aux(metrics={"a": 1.0})), "'a' is used twice"),
        (
            lambda p, b: {"kd": jnp.ones(3)},
            r"term 'kd' must be a scalar, got shape \(3,\)",
        ),
        (lambda p, b: jc.Mean(jnp.ones(3), jnp.ones(())), "jaxcompress.Mean.of"),
    ],
    ids=["reserved", "twice", "term", "mean"],
)
def test_bad_terms(loss, message):
    with pytest.raises(ValueError, match=message):
        one_step(loss, BATCH)


def test_schedules_reach_the_loss_at_their_step_without_a_recompile():
    def loss(params, batch, *, temperature, weight):
        metrics = {"temperature": temperature}
        return weight * loss_fn(params, batch), jc.Aux(metrics=metrics)

    schedules = {
        "temperature": optax.linear_schedule(8.0, 0.0, 4),
        "weight": lambda step: jnp.where(step < 2, 0.0, 1.0),
    }
    init, step = jc.train_step(
        loss, optax.sgd(0.1), schedules=schedules, micro_batches=2
    )
    state, seen = init(PARAMS), []
    for number in range(4):
        moved, metrics = step(state, BATCH)
        seen.append(float(metrics["temperature"]))
        still = all(
            jax.tree.leaves(jax.tree.map(jnp.array_equal, moved.params, state.params))
        )
        assert still == (number < 2)
        state = moved
    assert seen == [8.0, 6.0, 4.0, 2.0] and cache_size(step) == 1
    resumed, _ = step(state._replace(step=jnp.int32(1)), BATCH)
    equal(resumed.params, state.params)  # the step in the state is all that counts


@pytest.mark.parametrize(
    ("schedules", "error", "message"),
    [
        (
            {"rng": optax.constant_schedule(1.0)},
            ValueError,
            "schedules= cannot use the name 'rng'",
        ),
        ({"temperature": 2.0}, TypeError, "must be a function of the step, got 2.0"),
    ],
    ids=["name", "constant"],
)
def test_bad_schedules(schedules, error, message):
    with pytest.raises(error, match=message):
        jc.train_step(loss_fn, optax.sgd(0.1), schedules=schedules)


def test_a_schedule_that_the_loss_does_not_take_is_named():
    schedules = {"temperature": optax.constant_schedule(2.0)}
    with pytest.raises(TypeError, match="temperature"):
        one_step(loss_fn, BATCH, schedules=schedules)


def test_no_gradient_reaches_a_teacher_that_is_an_argument_of_the_step():
    teacher = jax.tree.map(lambda x: x + 0.5, PARAMS)

    def loss(params, batch, teacher):
        ours, theirs = forward(params, batch["x"]), forward(teacher, batch["x"])
        return jc.Mean.of(
            distill.kl(ours, theirs) + distill.hint(ours, theirs)
            + distill.similarity_preserving(ours, theirs),
            None,
        )  # fmt: skip

    init, step = jc.train_step(loss, optax.sgd(0.1), small())
    state = init(PARAMS)

    def after(teacher):
        moved, metrics = step(state, BATCH, teacher)
        return metrics["loss"] + optax.tree.sum(moved.params["b"])

    grads = jax.grad(after)(teacher)
    assert all(not g.any() for g in jax.tree.leaves(grads))
    # The teacher is no constant of the program: another one needs no new compilation.
    _, first = step(state, BATCH, teacher)
    _, other = step(state, BATCH, PARAMS)
    assert first["loss"] != other["loss"] and cache_size(step) == 1
