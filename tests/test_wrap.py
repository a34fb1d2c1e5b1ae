# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_layers import BATCH, PARAMS, cache_size, equal, loss_fn, small

import jaxcompress as jc


def learned_gain():
    return jc.Compressor(
        init=lambda params: jc.Learned(jnp.ones(())),
        apply=lambda params, state: jax.tree.map(lambda p: p * state.value, params),
    )


def test_a_wrapped_optimizer_compresses_in_a_loop_that_knows_nothing():
    c = small()
    tx = optax.chain(
        optax.clip_by_global_norm(1.0), jc.wrap_optimizer(optax.adam(0.01), c)
    )

    @jax.jit
    def somebody_elses_step(params, opt_state):
        loss, grads = jax.value_and_grad(loss_fn)(params, BATCH)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params, opt_state = PARAMS, tx.init(PARAMS)
    for _ in range(12):
        params, opt_state, loss = somebody_elses_step(params, opt_state)
    raw, state = jc.unwrap(opt_state)
    view = c.apply(raw, state)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        params,
        view,
    )
    zeros = view["a"]["kernel"] == 0
    assert zeros.sum() >= 38 and not params["a"]["kernel"][zeros].any()
    assert cache_size(somebody_elses_step) == 1


def test_wrapped_equals_train_step_but_for_its_first_gradient():
    # A pruner at a constant sparsity projects, so from the second step on both agree
    # when the first gradient is the same: start from parameters that are their own view.
    pruner = jc.magnitude_pruning(0.5)
    start, _ = pruner.update(PARAMS, pruner.init(PARAMS))
    init, step = jc.train_step(loss_fn, optax.adam(0.01), pruner)
    state = init(start)
    tx = jc.wrap_optimizer(optax.adam(0.01), pruner)
    params, opt_state = start, tx.init(start)
    for _ in range(5):
        state, _ = step(state, BATCH)
        grads = jax.grad(loss_fn)(params, BATCH)
        updates, opt_state = tx.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        state.params,
        jc.unwrap(opt_state)[0],
    )


KEY = jax.random.key(7)
PRUNERS = {
    "rigl": lambda: jc.rigl(0.5, key=KEY, until=8, every=2),
    "lottery": lambda: jc.lottery_ticket(0.5, rounds=2, every=2, rewind_to=1),
    "movement": lambda: jc.movement_pruning(jc.prune.schedules.one_shot(0.5, at=2)),
}


@pytest.mark.parametrize("name", PRUNERS)
def test_wrapped_draws_the_masks_of_train_step(name):
    c, tx = PRUNERS[name](), optax.adam(0.01)
    start = c.apply(
        PARAMS, c.init(PARAMS)
    )  # its own view: the first gradient is the same
    init, step = jc.train_step(loss_fn, tx, c)
    state, wrapped = init(start), jc.wrap_optimizer(tx, c)

    @jax.jit
    def theirs(params, opt_state):
        grads = jax.grad(loss_fn)(params, BATCH)
        updates, opt_state = wrapped.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state, drawn = start, wrapped.init(start), []
    for _ in range(6):
        state, _ = step(state, BATCH)
        params, opt_state = theirs(params, opt_state)
        raw, compression = jc.unwrap(opt_state)
        drawn.append(compression.masks["a"]["kernel"])
        equal(compression.masks, state.compression.masks)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
            (raw, opt_state.inner, params),
            (state.params, state.opt_state, c.apply(state.params, state.compression)),
        )
    assert any((a != b).any() for a, b in zip(drawn, drawn[1:], strict=False))
    assert cache_size(theirs) == 1


def test_an_average_of_raw_parameters_is_compressed_like_them():
    c = small()
    tx = jc.wrap_optimizer(optax.adam(0.1), c)

    @jax.jit
    def step(params, opt_state):
        updates, opt_state = tx.update(
            jax.grad(loss_fn)(params, BATCH), opt_state, params
        )
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = PARAMS, tx.init(PARAMS)
    of_raw = of_views = PARAMS
    for _ in range(14):
        params, opt_state = step(params, opt_state)
        raw, state = jc.unwrap(opt_state)
        of_raw, of_views = (
            jax.tree.map(lambda new, old: 0.1 * new + 0.9 * old, *pair)
            for pair in ((raw, of_raw), (params, of_views))
        )
    masks = state[0].masks["a"]["kernel"]
    assert (of_views["a"]["kernel"] != 0).sum() > masks.sum()  # the trap
    view = c.apply(of_raw, state)["a"]["kernel"]
    assert not view[~masks].any()
    # The grid of 4 bits: at most 15 levels in each column.
    assert max(len(np.unique(column)) for column in view.T) <= 15
    largest = jnp.max(jnp.abs(of_raw["a"]["kernel"] * masks), axis=0)
    gap = jnp.abs(view - of_raw["a"]["kernel"] * masks)
    assert (gap <= largest[None] / 14 + 1e-6).all()  # half a step of 7
    equal(jc.dense(c.finalize(of_raw, state)), c.apply(of_raw, state))


def test_the_loss_reaches_a_trigger_inside():
    rounds = jc.prune.schedules.geometric(0.5, rounds=2)
    c = jc.magnitude_pruning(rounds, every=jc.prune.schedules.converged(patience=2))
    tx = jc.wrap_optimizer(optax.sgd(0.1), c)
    opt_state = tx.init(PARAMS)
    for _ in range(3):
        _, opt_state = tx.update(PARAMS, opt_state, PARAMS, value=jnp.float32(1.0))
    assert int(jc.unwrap(opt_state)[1].masks["a"]["kernel"].sum()) == 34  # of 48
    with pytest.raises(TypeError, match="needs value=..., the loss"):
        tx.update(PARAMS, opt_state, PARAMS)


def test_a_loop_that_donates_both_of_its_arguments():
    tx = jc.wrap_optimizer(optax.sgd(0.1), jc.magnitude_pruning(0.5))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def theirs(params, opt_state):
        updates, opt_state = tx.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = jax.tree.map(jnp.copy, PARAMS)
    theirs(params, tx.init(params))


def test_wrapped_optimizers_say_what_they_need():
    tx = jc.wrap_optimizer(optax.sgd(0.1), jc.magnitude_pruning(0.5))
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="Use train_step"):
        jc.wrap_optimizer(optax.sgd(0.1), learned_gain()).init(PARAMS)
    with pytest.raises(ValueError, match="exactly one state of wrap_optimizer, got 0"):
        jc.unwrap(optax.sgd(0.1).init(PARAMS))


@pytest.mark.parametrize("name", ["pruned", "quantized"])
def test_a_loop_that_sets_its_parameters(name):
    c = {
        "pruned": jc.magnitude_pruning(0.5),
        "quantized": jc.weight_quantization(bits=8),
    }[name]
    tx = jc.wrap_optimizer(optax.sgd(0.01), c)

    @jax.jit
    def theirs(params, opt_state):
        grads = jax.tree.map(jnp.zeros_like, params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params, opt_state = theirs(*theirs(PARAMS, tx.init(PARAMS)))
    untouched = jc.unwrap(opt_state)[0]
    moved = jax.tree.map(lambda p: 3 * p, params)  # pretrained ones, say
    raw = jax.tree.map(lambda r, m, p: r + (m - p), untouched, moved, params)
    params, opt_state = theirs(moved, opt_state)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        (params, jc.unwrap(opt_state)[0]),
        (c.apply(raw, jc.unwrap(opt_state)[1]), raw),
    )
    assert np.abs(params["a"]["kernel"] - moved["a"]["kernel"]).max() < 0.1


def test_a_loop_that_clips_its_parameters():
    tx = jc.wrap_optimizer(optax.sgd(0.01), jc.magnitude_pruning(0.5))
    params, opt_state = PARAMS, tx.init(PARAMS)
    for _ in range(3):
        updates, opt_state = tx.update(
            jax.tree.map(jnp.zeros_like, params), opt_state, params
        )
        params = optax.apply_updates(params, updates)
        params = jax.tree.map(lambda p: jnp.clip(p, -0.5, 0.5), params)
    raw, state = jc.unwrap(opt_state)
    view = jc.magnitude_pruning(0.5).apply(raw, state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), view, params)
