# SPDX-License-Identifier: Apache-2.0
"""Channels pruned during training: masks, penalties, and the network that is left."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from two_paths import GROUPS, PARAMS, X, fn

import jaxcompress as jc
from jaxcompress.structured import (
    PlanError,
    penalties,
    plan_of,
    scores,
    slice_params,
    structured_pruning,
)

HIDDEN = "up/kernel[1]"
TARGET = jnp.sin(X @ jnp.ones((4, 3)))


def loss(params, x):
    return jnp.square(fn(params, x) - TARGET).mean()


def trained(compressor, loss=loss, steps=6, tx=None):
    tx = optax.adam(1e-2) if tx is None else tx
    init, step = jc.train_step(loss, tx, compressor)
    state, run = init(PARAMS), jax.jit(step)
    for _ in range(steps):
        state, _ = run(state, X)
    return state


def test_a_schedule_prunes_more_and_more_and_the_rest_is_what_is_sliced():
    ramp = optax.linear_schedule(0.0, 0.5, 4)
    pruner = structured_pruning(GROUPS, ramp)
    state = trained(pruner)
    view = pruner.apply(state.params, state.compression)
    plan = plan_of(GROUPS, state.compression)
    widths = plan.widths
    assert widths["in/kernel"][1] + widths["up/kernel"][1] == 10
    small = slice_params(state.params, plan)
    np.testing.assert_allclose(
        jax.jit(jc.shrink(fn, plan))(small, X), fn(view, X), rtol=1e-4, atol=1e-5
    )


def test_gradients_are_a_score():
    pruner = structured_pruning(GROUPS, 0.5, score=scores.taylor, every=2)
    first = pruner.init(PARAMS)
    assert all(mask.all() for mask in first.masks.values())  # no gradients yet
    state = trained(pruner)
    assert plan_of(GROUPS, state.compression).parameters < GROUPS.parameters()
    with pytest.raises(TypeError, match="grads"):
        pruner.update(PARAMS, first)


def test_protected_and_rounded_groups():
    pruner = structured_pruning(GROUPS, 0.5, round_to=4, protect="out/*")
    widths = plan_of(GROUPS, pruner.init(PARAMS)).widths
    assert widths == {"up/kernel": (8, 8), "down/kernel": (8, 8)}
    with pytest.raises(PlanError, match="no group is left"):
        structured_pruning(GROUPS, 0.5, protect="*")


def test_parameters_of_another_network_are_refused():
    with pytest.raises(PlanError, match="not those that trace_axes got"):
        structured_pruning(GROUPS, 0.5).init({"kernel": jnp.ones((3, 3))})
    with pytest.raises(ValueError, match="sparsity"):
        structured_pruning(GROUPS, 1.5)


def test_group_lasso_is_the_sum_of_norms():
    up, down = (np.asarray(PARAMS[n]["kernel"]) for n in ("up", "down"))
    hidden = np.sqrt((up**2).sum(0) + (down**2).sum(1))
    stream = np.sqrt(
        sum(
            (np.asarray(PARAMS[n]["kernel"]) ** 2).sum(axis)
            for n, axis in (("in", 0), ("up", 1), ("down", 0), ("out", 1))
        )
    )
    np.testing.assert_allclose(
        penalties.group_lasso(GROUPS, PARAMS), hidden.sum() + stream.sum(), rtol=1e-5
    )
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    grads = jax.grad(lambda p: penalties.group_lasso(GROUPS, p))(zeros)
    assert all((g == 0).all() for g in jax.tree.leaves(grads))


def test_group_lasso_pulls_every_channel_with_the_same_strength():
    up, down = PARAMS["up"]["kernel"], PARAMS["down"]["kernel"]
    hidden = jnp.sqrt(jnp.square(up).sum(0) + jnp.square(down).sum(1))
    stream = jnp.sqrt(
        jnp.square(PARAMS["in"]["kernel"]).sum(0)
        + jnp.square(up).sum(1)
        + jnp.square(down).sum(0)
        + jnp.square(PARAMS["out"]["kernel"]).sum(1)
    )
    grads = jax.grad(lambda p: penalties.group_lasso(GROUPS, p))(PARAMS)
    wanted = up / hidden[None] + up / stream[:, None]
    np.testing.assert_allclose(grads["up"]["kernel"], wanted, rtol=1e-5)


def test_growing_pulls_only_what_goes():
    masks = {HIDDEN: np.arange(12) < 6}
    grads = jax.grad(lambda p: penalties.growing(GROUPS, p, masks))(PARAMS)
    np.testing.assert_allclose(grads["up"]["kernel"][:, :6], 0)
    np.testing.assert_allclose(
        grads["up"]["kernel"][:, 6:], PARAMS["up"]["kernel"][:, 6:], rtol=1e-6
    )


def test_network_slimming_sums_the_scales():
    params = {"norm": {"scale": jnp.array([1.0, -2.0])}, "kernel": jnp.ones((2, 2))}
    assert float(penalties.norm_scale(params)) == 3.0


def test_it_trains_under_scan_and_on_restored_state(tmp_path):
    pruner = structured_pruning(GROUPS, optax.linear_schedule(0.0, 0.5, 4))
    init, step = jc.train_step(loss, optax.sgd(1e-2), pruner)
    state = init(PARAMS)
    after, _ = jax.lax.scan(lambda s, x: step(s, x), state, jnp.stack([X] * 3))
    jc.save_checkpoint(tmp_path, 3, after)
    again = jc.restore_checkpoint(tmp_path, state)
    assert plan_of(GROUPS, again.compression) == plan_of(GROUPS, after.compression)
