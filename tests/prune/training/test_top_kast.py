# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.prune import top_kast

PARAMS = {
    "bias": jnp.ones(5),
    "kernel": normal(8, 5),
}


def largest(kernel, number):
    order = np.argsort(np.abs(kernel), axis=None, kind="stable")
    mask = np.zeros(kernel.size, bool)
    mask[order[kernel.size - number :]] = True
    return mask.reshape(kernel.shape)


def test_the_model_sees_the_largest_and_gradients_go_to_some_more():
    c = top_kast(0.8, 0.5)
    state = jax.jit(c.init)(PARAMS)
    forward, backward = (largest(PARAMS["kernel"], n) for n in (8, 20))
    np.testing.assert_array_equal(state.masks["kernel"], forward)
    np.testing.assert_array_equal(state.kept.masks["kernel"], backward)
    view, pullback = jax.vjp(lambda p: c.apply(p, state), PARAMS)
    np.testing.assert_array_equal(
        view["kernel"], np.where(forward, PARAMS["kernel"], 0)
    )
    (grads,) = pullback(jax.tree.map(jnp.ones_like, view))
    np.testing.assert_array_equal(grads["kernel"], backward)
    np.testing.assert_array_equal(grads["bias"], 1)
    assert state.masks["bias"] is None


def test_a_weight_below_the_threshold_overtakes_and_one_far_below_never_does():
    params = {"kernel": jnp.array([[4.0, 3.0, 2.0, 1.0]])}
    c = top_kast(0.75, 0.5)

    def loss_fn(view, batch):  # it wants all of them to be large
        return -batch * jnp.sum(view["kernel"] * jnp.array([[0.0, 1.0, 1.0, 1.0]]))

    init, step = jc.train_step(loss_fn, optax.sgd(0.5), c)
    state = init(params)
    for _ in range(3):
        state, _ = step(state, 1.0)
    assert state.params["kernel"].tolist() == [[4.0, 4.5, 2.0, 1.0]]
    assert state.compression.masks["kernel"].tolist() == [[False, True, False, False]]


def test_masks_are_redrawn_of_what_is_there_every_so_often():
    c = top_kast(0.8, 0.5, every=2)
    state, update = c.init(PARAMS), jax.jit(c.update)
    moved = {**PARAMS, "kernel": PARAMS["kernel"][::-1]}
    params, once = update(moved, state)
    np.testing.assert_array_equal(once.masks["kernel"], state.masks["kernel"])
    params, twice = update(params, once)
    np.testing.assert_array_equal(twice.masks["kernel"], state.masks["kernel"][::-1])
    np.testing.assert_array_equal(
        twice.kept.masks["kernel"], state.kept.masks["kernel"][::-1]
    )
    np.testing.assert_array_equal(params["kernel"], moved["kernel"])


def test_what_is_not_trained_stands_still_and_keeps_no_momentum():
    c, tx = top_kast(0.8, 0.5), optax.adam(0.1)

    def loss_fn(view, batch):
        return jnp.mean((batch @ view["kernel"] + view["bias"][None] - 1) ** 2)

    init, step = jc.train_step(loss_fn, tx, c)
    state, batch = init(PARAMS), normal(12, 8, seed=1)
    for _ in range(8):
        before = state
        state, _ = step(state, batch)
        out = ~np.asarray(before.compression.kept.masks["kernel"])
        np.testing.assert_array_equal(
            state.params["kernel"][out], before.params["kernel"][out]
        )
        assert not state.opt_state[0].mu["kernel"][out].any()
        assert (state.compression.masks["kernel"].sum()) == 8
        assert not (
            state.compression.masks["kernel"] & ~state.compression.kept.masks["kernel"]
        ).any()


def test_what_is_trained_and_not_seen_shrinks_by_more():
    params = {"kernel": jnp.array([[8.0, 4.0, 2.0, 1.0]])}
    c = top_kast(0.75, 0.25, decay=0.125)
    new, _ = c.update(params, c.init(params))
    # The share over the density of the forward pass, 1/4, is a half.
    assert new["kernel"].tolist() == [[7.0, 2.0, 1.0, 1.0]]


def test_a_member_of_a_sweep_equals_a_solo_run():
    c = top_kast(0.8, 0.5)
    two = jnp.stack([PARAMS["kernel"], PARAMS["kernel"][::-1]])

    def run(kernel):
        params, state = c.update({"kernel": kernel}, c.init({"kernel": kernel}))
        return c.apply(params, state)["kernel"]

    together = jax.jit(jax.vmap(run))(two)
    for i in range(2):
        np.testing.assert_array_equal(together[i], jax.jit(run)(two[i]))


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((0.5, 0.8), {}, "more weights are trained than used"),
        ((0.5, 0.5), {}, "0 <= backward_sparsity < sparsity < 1"),
        ((80, 50), {}, "sparsity=80, backward_sparsity=50"),
        ((0.8, 0.5), {"every": 0}, "every must be at least 1 .* got every=0"),
        ((0.8, 0.5), {"decay": 1.0}, r"decay in \[0, 1\), got .*decay=1.0"),
    ],
)
def test_bad_arguments(args, kwargs, message):
    with pytest.raises(ValueError, match=message):
        top_kast(*args, **kwargs)
