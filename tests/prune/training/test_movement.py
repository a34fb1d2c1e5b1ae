# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from two_layers import cache_size

import jaxcompress as jc
from jaxcompress import prune

# The large weights are wrong: the task wants the small ones alone, and larger.
START = {"kernel": jnp.array([[2.0, 0.5, -2.0, -0.5, 1.5, 0.6]])}
TARGET = jnp.array([[0.0, 1.0, 0.0, -1.0, 0.0, 1.0]])
BATCH = normal(64, 6)


def loss_fn(p, x):
    return jnp.mean((x @ p["kernel"].T - x @ TARGET.T) ** 2)


def trained(c, steps, tx=None):
    init, step = jc.train_step(loss_fn, optax.sgd(0.02) if tx is None else tx, c)
    states = [init(START)]
    for _ in range(steps):
        states.append(step(states[-1], BATCH)[0])
    return states


def masks(states):
    return np.stack([s.compression.masks["kernel"][0] for s in states])


def test_movement_keeps_what_the_task_wants_and_magnitude_what_is_large():
    ramp = prune.schedules.one_shot(0.5, at=5)
    moved = masks(trained(jc.movement_pruning(ramp), 10))
    large = masks(trained(jc.magnitude_pruning(ramp), 10))
    np.testing.assert_array_equal(moved[-1], TARGET[0] != 0)
    np.testing.assert_array_equal(large[-1], TARGET[0] == 0)
    assert moved[:5].all() and large[:5].all()  # all kept until then


def test_scores_are_the_sum_of_minus_weight_times_gradient():
    c = jc.movement_pruning(0.5)
    update, state, expected = (
        jax.jit(c.update),
        c.init(START),
        np.zeros((1, 6), np.float32),
    )
    params = START
    for t in range(4):
        params = {"kernel": params["kernel"] + 0.1 * t}
        grads = {"kernel": normal(1, 6, seed=t)}
        params, state = update(params, state, grads=grads)
        expected -= np.asarray(params["kernel"]) * np.asarray(grads["kernel"])
        np.testing.assert_allclose(state.memory["kernel"], expected, rtol=1e-5)
        order = np.argsort(np.asarray(state.memory["kernel"])[0], kind="stable")
        assert not state.masks["kernel"][0][order[:3]].any()
        assert state.masks["kernel"].sum() == 3


def test_pruned_weights_keep_their_values_and_come_back_with_them():
    c = jc.movement_pruning(0.5)
    update, params, state = jax.jit(c.update), START, c.init(START)
    push = jnp.array([[1.0, 1.0, 1.0, -1.0, -1.0, -1.0]]) * jnp.sign(START["kernel"])
    params, state = update(params, state, grads={"kernel": push})
    assert state.masks["kernel"].tolist() == [[False] * 3 + [True] * 3]
    view = c.apply(params, state)["kernel"]
    np.testing.assert_array_equal(view[0, :3], 0)
    np.testing.assert_array_equal(params["kernel"], START["kernel"])
    params, state = update(params, state, grads={"kernel": -9 * push})
    assert state.masks["kernel"].tolist() == [[True] * 3 + [False] * 3]
    view = c.apply(params, state)["kernel"]
    np.testing.assert_array_equal(view[0, :3], START["kernel"][0, :3])


def held_while_pruned(tx):
    schedule, once = (
        prune.schedules.one_shot(0.5, at=2),
        prune.schedules.periodic(1, end=2),
    )
    c = jc.movement_pruning(schedule, every=once)
    states = trained(c, 6, tx)
    out = ~masks(states)[2]
    assert out.sum() == 3
    now, before = (states[t].params["kernel"][0][out] for t in (6, 2))
    np.testing.assert_allclose(now, before, rtol=1e-6)


STEPS = {
    "adam": optax.adam(0.05),
    "momentum": optax.sgd(0.02, momentum=0.9),
    "rprop": optax.rprop(0.05),
}


@pytest.mark.parametrize("name", STEPS)
def test_old_momentum_does_not_move_what_is_pruned(name):
    held_while_pruned(STEPS[name])


def test_an_optimizer_that_holds_weights_does_not_move_what_is_pruned():
    held_while_pruned(optax.contrib.schedule_free_sgd(0.05))


def test_a_gradient_is_needed():
    c = jc.movement_pruning(0.5)
    with pytest.raises(
        TypeError, match=r"needs grads=\.\.\.: pass it to pruner.update"
    ):
        c.update(START, c.init(START))


@pytest.mark.parametrize(
    "score", [prune.scores.movement(), prune.scores.averaged(prune.scores.saliency)]
)
def test_running_scores_outside_of_jit(score):
    c = prune.prune(0.5, score=score, pruned=prune.treatments.frozen)
    _, state = c.update(START, c.init(START), grads=START)
    assert state.masks["kernel"].sum() == 3


def test_biases_are_left_alone_and_no_step_recompiles():
    params = {
        "bias": jnp.ones(4),
        "kernel": normal(6, 4, seed=1),
    }

    def loss_fn(p, x):
        return jnp.mean((x @ p["kernel"] + p["bias"][None]) ** 2)

    init, step = jc.train_step(loss_fn, optax.adam(0.01), jc.movement_pruning(0.5))
    state = init(params)
    for _ in range(3):
        state, _ = step(state, BATCH)
    assert state.compression.masks["bias"] is None
    assert state.compression.masks["kernel"].sum() == 12
    assert (state.params["bias"] != 1).all() and cache_size(step) == 1


@pytest.mark.parametrize("strength", [0.0, 0.05, 50.0])
def test_soft_movement_finds_its_sparsity(strength):
    c = prune.soft_movement_pruning(regularization=strength)
    states = trained(c, 8)
    # A score is pushed by the derivative of the sigmoid, 1/4 at the start.
    memory, state = np.zeros(6, np.float32), states[0].compression
    assert masks(states)[0].all()
    for before, after in zip(states, states[1:], strict=False):
        view = c.apply(before.params, before.compression)
        grads = jax.grad(loss_fn)(view, BATCH)["kernel"][0]
        gate = 1 / (1 + np.exp(-memory))
        memory = memory - np.asarray(before.params["kernel"][0] * grads)
        memory = memory - strength * gate * (1 - gate)
        state = after.compression
        np.testing.assert_allclose(
            state.memory["kernel"][0], memory, rtol=1e-3, atol=1e-5
        )
        clear = abs(memory) > 1e-3
        expected = (memory >= 0) | (memory == memory.max())  # one is left
        np.testing.assert_array_equal(state.masks["kernel"][0][clear], expected[clear])
        memory = np.asarray(state.memory["kernel"][0])
    if strength == 50.0:
        assert state.masks["kernel"].sum() == 1
    else:  # what the task wants stays
        assert state.masks["kernel"][0][TARGET[0] != 0].all()


def test_momentum_of_what_comes_back_starts_again():
    # AC/DC: the phases of one mask and of none take turns.
    turns = prune.schedules.alternating(0.5, begin=2, dense=2, sparse=2, end=100)
    states = trained(jc.magnitude_pruning(turns), 8, optax.adam(0.05))
    seen = masks(states)
    assert [int(m.sum()) for m in seen] == [6, 6, 3, 3, 6, 6, 3, 3, 6]
    for t in (4, 8):
        back = seen[t] & ~seen[t - 1]
        assert back.sum() == 3
        moments = states[t].opt_state[0]
        for array in (moments.mu, moments.nu, states[t].params):
            assert not array["kernel"][0][back].any()
            assert array["kernel"][0][~back].all()
