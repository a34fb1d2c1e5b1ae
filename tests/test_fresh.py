# SPDX-License-Identifier: Apache-2.0
import functools

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc

MASK = jnp.array([[True, False], [False, True]])
OTHER = jnp.array([[True, True], [False, False]])
LIKE = jnp.zeros((2, 2))


def ones(tx, params):
    """The optimizer's state with ones in it."""
    return jax.tree.map(jnp.ones_like, tx.init(params))


def momenta(params, masks, tx=None):
    tx = optax.sgd(0.1, momentum=0.9) if tx is None else tx
    state = jc.fresh(tx, ones(tx, params), params, (3, jc.Active(masks)))
    return state[0].trace


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert jax.tree.structure(a) == jax.tree.structure(b)


def of(mask):
    return mask.astype(jnp.float32)


ALL = jnp.ones((2, 2))


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({"a": MASK, "b": {"a": None}}, {"a": of(MASK), "b": {"a": ALL}}),
        ({"a": None, "b": {"a": MASK}}, {"a": ALL, "b": {"a": of(MASK)}}),
        ({"a": MASK, "b": {"a": OTHER}}, {"a": of(MASK), "b": {"a": of(OTHER)}}),
    ],
)
def test_a_path_that_ends_like_another_is_not_taken_for_it(masks, expected):
    equal(momenta({"a": LIKE, "b": {"a": LIKE}}, masks), expected)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda a, b: [a, b],
        lambda a, b: (a, b),
        lambda a, b: (a, (b, a)),
        lambda a, b: {"mu": a, "trace": {"mu": b}},
        lambda a, b: jc.LowRank(left=a, right=b),
        lambda a, b: {"k": jc.LowRank(left=a, right=b), "left": b},
        lambda a, b: nnx.State({"k": nnx.Param(a), "l": {"k": nnx.Param(b)}}),
    ],
    ids=["list", "tuple", "nested", "names", "lowrank", "mixed", "nnx"],
)
def test_any_container(wrap):
    params, masks = wrap(LIKE, LIKE), wrap(MASK, OTHER)
    equal(momenta(params, masks), wrap(of(MASK), of(OTHER)))
    tx = optax.chain(optax.clip(1.0), optax.adam(0.1))
    state = jc.fresh(tx, ones(tx, params), params, jc.Active(masks))
    equal(state[1][0].nu, wrap(of(MASK), of(OTHER)))
    assert state[1][0].count == 1


def test_one_array_that_is_the_whole_tree():
    equal(momenta(LIKE, MASK), of(MASK))


def test_two_masks_of_a_weight_are_both_held():
    params = {"kernel": normal(8, 4)}
    first = jc.magnitude_pruning(0.5)
    second = jc.prune.static_sparse(0.5, key=jax.random.key(1))
    both = jc.chain(first, second)
    state = both.init(params)
    tx = optax.adam(0.1)
    masks = [s.masks["kernel"] for s in state]
    assert (masks[0] != masks[1]).any()
    mu = jc.fresh(tx, ones(tx, params), params, state)[0].mu["kernel"]
    np.testing.assert_array_equal(mu, of(masks[0] & masks[1]))


def test_what_has_no_mask_is_the_same_array():
    params = {"bias": jnp.ones(2), "kernel": LIKE}
    tx = optax.adam(0.1)
    state = ones(tx, params)
    after = jc.fresh(tx, state, params, jc.Active({"bias": None, "kernel": MASK}))
    assert after[0].mu["bias"] is state[0].mu["bias"]
    assert after[0].count is state[0].count
    for nothing in (
        (),
        (1, {"masks": MASK}),
        jc.Active({"bias": None, "kernel": None}),
    ):
        same = jc.fresh(tx, state, params, nothing)
        pairs = zip(jax.tree.leaves(same), jax.tree.leaves(state), strict=True)
        assert all(a is b for a, b in pairs)


def test_nothing_pruned_changes_no_bit():
    params = {"kernel": normal(6, 4)}
    batch = normal(12, 6, seed=1)

    def run(c):
        init, step = jc.train_step(
            lambda p, b: jnp.mean((b @ p["kernel"] - 1) ** 2), optax.adam(0.1), c
        )
        state = init(params)
        for _ in range(4):
            state, _ = step(state, batch)
        return state.params, state.opt_state

    with (
        jax.disable_jit()
    ):  # the compiler rounds differently where it fuses differently
        dense = run(None)
        equal(run(jc.rigl(0.0, key=jax.random.key(0), until=9, every=1)), dense)
        equal(run(jc.lottery_ticket(0.5, rounds=1, every=9)), dense)


def test_a_restart_wins_over_masks_and_keeps_dtypes():
    params = {"kernel": LIKE}
    tx = optax.inject_hyperparams(optax.adagrad)(learning_rate=0.1)
    old = ones(tx, params)
    marks = (jc.Active({"kernel": MASK}), jc.Restart(jnp.array(True)))
    equal(jc.fresh(tx, old, params, marks), tx.init(params))
    assert [x.dtype for x in jax.tree.leaves(jc.fresh(tx, old, params, marks))] == [
        x.dtype for x in jax.tree.leaves(old)
    ]
    quiet = (jc.Restart(jnp.array(False)), jc.Restart(jnp.array(True)))
    equal(jc.fresh(tx, old, params, quiet), tx.init(params))  # one of two is enough


def test_a_loop_of_ones_own_equals_train_step():
    params = {"kernel": normal(6, 4)}
    batch = normal(12, 6, seed=1)
    c, tx = jc.rigl(0.5, key=jax.random.key(2), until=9, every=2), optax.adam(0.1)

    def loss_fn(p, b):
        return jnp.mean((b @ p["kernel"] - 1) ** 2)

    @functools.partial(jax.jit, donate_argnums=(0, 1, 2))
    def by_hand(params, opt_state, state):
        view = c.apply(params, state)
        grads = jax.grad(loss_fn)(view, batch)
        raw_grads = jax.vjp(lambda p: c.apply(p, state), params)[1](grads)[0]
        opt_state = jc.fresh(tx, opt_state, params, state)
        updates, opt_state = tx.update(raw_grads, opt_state, params)
        params = optax.apply_updates(params, updates)
        params, state = c.update(params, state, grads=grads)
        return params, opt_state, state

    init, step = jc.train_step(loss_fn, tx, c)
    state = init(params)
    mine = jax.tree.map(jnp.copy, (params, tx.init(params), c.init(params)))
    for _ in range(4):
        state, _ = step(state, batch)
        mine = by_hand(*mine)
    equal(mine[2], state.compression)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        mine[:2],
        (state.params, state.opt_state),
    )
