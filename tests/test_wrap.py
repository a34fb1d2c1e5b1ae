# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_layers import BATCH, PARAMS, cache_size, loss_fn, small

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


def test_wrapped_optimizers_say_what_they_need():
    tx = jc.wrap_optimizer(optax.sgd(0.1), jc.magnitude_pruning(0.5))
    with pytest.raises(ValueError, match=r"tx.update\(grads, state, params\)"):
        tx.update(PARAMS, tx.init(PARAMS))
    with pytest.raises(ValueError, match="Use train_step"):
        jc.wrap_optimizer(optax.sgd(0.1), learned_gain()).init(PARAMS)
    with pytest.raises(ValueError, match="holds 0 states of wrap_optimizer"):
        jc.unwrap(optax.sgd(0.1).init(PARAMS))
