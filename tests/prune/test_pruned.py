# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress.prune import prune
from jaxcompress.prune.budgets import owl
from jaxcompress.prune.patterns import NOfM
from jaxcompress.prune.schedules import converged
from jaxcompress.prune.treatments import Pruned, frozen, sr_ste, zeroed

RNG = np.random.default_rng(0)
KERNEL = put(RNG.normal(size=(8, 6)))
MASK = jnp.asarray(RNG.random((8, 6)) < 0.5)
ALL = {"zeroed": zeroed, "frozen": frozen, "straight_through": sr_ste()}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def bits(x):
    return np.asarray(x).tobytes()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_views_are_zero_where_pruned_and_exact_elsewhere(name, dtype):
    kernel = KERNEL.astype(dtype)
    for view in (ALL[name].view, jax.jit(ALL[name].view)):
        seen = view(kernel, MASK)
        assert seen.dtype == dtype
        np.testing.assert_array_equal(seen, jnp.where(MASK, kernel, 0))
        np.testing.assert_array_equal(view(seen, MASK), seen)


@pytest.mark.parametrize("name", ALL)
def test_gradients_of_pruned_weights(name):
    cotangent = put(RNG.normal(size=(8, 6)))
    _, pullback = jax.vjp(lambda w: ALL[name].view(w, MASK), KERNEL)
    expected = cotangent if name == "straight_through" else cotangent * MASK
    np.testing.assert_array_equal(pullback(cotangent)[0], expected)


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_what_settles(decay):
    np.testing.assert_array_equal(zeroed.settle(KERNEL, MASK), KERNEL * MASK)
    assert frozen.settle(KERNEL, MASK) is KERNEL
    settled = sr_ste(decay).settle(KERNEL, MASK)
    expected = np.where(MASK, KERNEL, KERNEL * np.float32(1 - decay))
    np.testing.assert_array_equal(settled, expected)
    half = sr_ste(decay).settle(KERNEL.astype(jnp.bfloat16), MASK)
    assert half.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", ["zeroed", "frozen"])
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_lies_under_a_mask_reaches_neither_view_nor_gradient(name, bad):
    kernel = jnp.where(MASK, KERNEL, bad)

    def loss(w):
        return jnp.sum(ALL[name].view(w, MASK) ** 2)

    value, grad = jax.jit(jax.value_and_grad(loss))(kernel)
    assert jnp.isfinite(value)
    np.testing.assert_array_equal(grad, 2 * jnp.where(MASK, KERNEL, 0))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_what_is_under_the_mask_settles_to_zero(bad):
    pruner = jc.magnitude_pruning(0.5)
    params = {"kernel": KERNEL}
    state = pruner.init(params)
    broken = {"kernel": jnp.where(state.masks["kernel"], KERNEL, bad)}
    equal(pruner.apply(broken, state), pruner.apply(params, state))
    for update in (pruner.update, jax.jit(pruner.update)):
        settled, after = update(broken, state)
        assert jnp.isfinite(settled["kernel"]).all()
        equal(after.masks, state.masks)


@pytest.mark.parametrize("name", ALL)
def test_at_sparsity_zero_it_is_the_dense_optimizer_to_the_bit(name):
    params = {"kernel": KERNEL.at[0, 0].set(-0.0).at[1, 1].set(0.0)}
    # Powers of two: products are exact, so that it is all the same to the bits whether
    # XLA fuses one into a sum, which it decides anew for every program.
    tx = optax.chain(optax.add_decayed_weights(2**-4), optax.sgd(0.25, momentum=0.5))

    def run(compressor):
        def loss_fn(view, batch):
            return jnp.sum((view["kernel"] - batch) ** 2 * (batch > 0.5))

        init, step = jc.train_step(loss_fn, tx, compressor)
        state = init(params)
        for i in range(4):
            state, metrics = step(state, jnp.cos(i + KERNEL))
        return state.params, state.opt_state, metrics

    got = run(jc.magnitude_pruning(0.0, pruned=ALL[name]))
    expected = run(jc.identity())
    for x, y in zip(*map(jax.tree.leaves, (got, expected)), strict=True):
        assert bits(x) == bits(y)


def by_target(pruned, tx, steps, batches):
    """Train towards what the batches say, with masks redrawn at every step."""
    pruner = prune(0.5, pruned=pruned)
    init, step = jc.train_step(
        lambda view, batch: jnp.sum((view["kernel"] - batch) ** 2) / 2, tx, pruner
    )
    state = init({"kernel": jnp.asarray([[1.0, 2.0, 3.0, 4.0]])})
    for i in range(steps):
        state, _ = step(state, jnp.asarray(batches[i]))
    return pruner, state


def test_straight_through_trains_pruned_weights_until_they_return():
    far = [[9.0, 0.0, 3.0, 4.0]]
    pruner, state = by_target(sr_ste(), optax.sgd(0.1), 5, [far] * 5)
    # The gradient at the view, whose first entry is 0 until it is back.
    assert state.compression.masks["kernel"].tolist() == [[True, False, False, True]]
    assert state.params["kernel"][0, 0] > 4
    _, state = by_target(zeroed, optax.sgd(0.1), 5, [far] * 5)
    assert state.compression.masks["kernel"].tolist() == [[False, False, True, True]]
    assert not state.params["kernel"][0, :2].any()


def test_sr_ste_is_decoupled_weight_decay_of_what_is_pruned():
    still = [[0.0, 0.0, 3.0, 4.0]]  # no gradient anywhere
    _, state = by_target(sr_ste(0.25), optax.sgd(0.1), 3, [still] * 3)
    expected = [[0.75**3, 2 * 0.75**3, 3, 4]]
    np.testing.assert_allclose(state.params["kernel"], expected, rtol=1e-6)
    # The paper: w - rate * (g + factor * w) where pruned.
    moving = [[1.0, 1.0, 3.0, 4.0]]
    rate, factor = 0.1, 0.5
    _, state = by_target(sr_ste(rate * factor), optax.sgd(rate), 1, [moving])
    view = np.array([[0.0, 0.0, 3.0, 4.0]])
    grad = view - np.array(moving)
    start = np.array([[1.0, 2.0, 3.0, 4.0]])
    paper = start - rate * (grad + factor * np.where(view == 0, start, 0))
    # The decay here is taken after the step, so that they differ by rate**2.
    np.testing.assert_allclose(state.params["kernel"], paper, atol=rate**2)


def test_frozen_weights_come_back_with_their_value():
    turn = {"at": jnp.asarray([[1.0, 2.0, 3.0, 4.0]])}
    pruner = prune(
        0.5,
        score=lambda params, *, wanted, **extras: {"kernel": wanted},
        pruned=frozen,
    )
    init, update = jax.jit(pruner.init), jax.jit(pruner.update)
    params = {"kernel": jnp.asarray([[1.5, -2.5, 3.5, 4.5]])}
    state = init(params)
    for _ in range(2):
        params, state = update(params, state, wanted=turn["at"])
    view = pruner.apply(params, state)["kernel"]
    assert view.tolist() == [[0, 0, 3.5, 4.5]]
    # The optimizer trains what is kept, and keeps no state of what is not.
    params, state = update(params, state, wanted=-turn["at"])
    assert pruner.apply(params, state)["kernel"].tolist() == [[1.5, -2.5, 0, 0]]


@pytest.mark.parametrize("name", ALL)
def test_momentum_of_pruned_weights_is_dropped_unless_they_are_trained(name):
    pruner = prune(0.5, pruned=ALL[name])
    init, step = jc.train_step(
        lambda view, batch: jnp.sum(view["kernel"] * batch),
        optax.sgd(0.01, momentum=0.9),
        pruner,
    )
    state = init({"kernel": KERNEL})
    for _ in range(3):
        state, _ = step(state, jnp.ones((8, 6)))
    mask = state.compression.masks["kernel"]
    trace = state.opt_state[0].trace["kernel"]
    assert trace[mask].all()
    assert trace[~mask].all() if name == "straight_through" else not trace[~mask].any()


def test_a_kind_of_ones_own_is_two_functions():
    halved = Pruned(view=zeroed.view, settle=lambda p, m: jnp.where(m, p, p / 2))
    pruner = jc.magnitude_pruning(0.5, pruned=halved)
    params = {"kernel": jnp.asarray([[1.0, 2.0], [3.0, 4.0]])}
    moved, state = pruner.update(params, pruner.init(params))
    assert moved["kernel"].tolist() == [[0.5, 1], [3, 4]]
    assert pruner.apply(moved, state)["kernel"].tolist() == [[0, 0], [3, 4]]


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_bad_decay(decay):
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got decay="):
        sr_ste(decay)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_what_is_not_finite_is_hidden_under_the_mask_of_weights_that_are_trained(bad):
    treatment = sr_ste()
    param, mask = jnp.array([1.0, bad]), jnp.array([True, False])
    assert treatment.view(param, mask).tolist() == [1.0, 0.0]
    grads = jax.grad(lambda p: treatment.view(p, mask).sum())(param)
    assert jnp.isfinite(grads).all()


def test_what_was_to_be_called_first_is_named():
    with pytest.raises(
        TypeError, match="pattern must be an instance .* got the class NOfM"
    ):
        prune(0.5, pattern=NOfM)  # pyright: ignore[reportArgumentType]
    for every in (2.5, converged, True):
        with pytest.raises(TypeError, match="every must be an integer or a Trigger"):
            prune(0.5, every=every)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="must return a tree of arrays .* 3.0"):
        prune(0.5, score=lambda params, **extras: 3.0).init({"kernel": KERNEL})
    with pytest.raises(TypeError, match="must return a dict of counts .* budget=owl"):
        prune(0.5, budget=owl).init({"kernel": KERNEL})  # pyright: ignore[reportArgumentType]
