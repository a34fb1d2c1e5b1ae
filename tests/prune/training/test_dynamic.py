# SPDX-License-Identifier: Apache-2.0
import functools
import math

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress import prune

KEY = jax.random.key(5)
PARAMS = {
    "a": {"kernel": normal(16, 6), "bias": jnp.ones(6)},
    "b": {"kernel": normal(6, 4, seed=1), "bias": jnp.ones(4)},
}
KERNEL = {"kernel": PARAMS["b"]["kernel"]}
BATCH = normal(12, 16, seed=2)


def loss_fn(p, x):
    hidden = jnp.tanh(x @ p["a"]["kernel"] + p["a"]["bias"][None])
    return jnp.mean((hidden @ p["b"]["kernel"] + p["b"]["bias"][None] - x[:, :4]) ** 2)


def rigl(**kwargs):
    return jc.rigl(0.6, **{"key": KEY, "until": 8, "every": 2, **kwargs})


def masks_of(state):
    """By layer, as NumPy arrays."""
    masks = state.compression.masks if hasattr(state, "compression") else state.masks
    return {name: np.asarray(layer["kernel"]) for name, layer in masks.items()}


def trained(c, steps, params, tx=None):
    """The training states, the first included; traced, under scan."""
    init, step = jc.train_step(loss_fn, optax.adam(0.05) if tx is None else tx, c)

    def one(state, _):
        return step(state, BATCH)[0], state

    last, states = jax.lax.scan(one, init(params), length=steps)
    return jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), states, last)


def listed(states):
    states, number = jax.device_get(states), len(states.step)
    return [jax.tree.map(lambda x, t=t: x[t], states) for t in range(number)]


@functools.cache
def start_of_kernel():
    return jax.jit(rigl().init)(KERNEL)


def updated(c, steps):
    """The masks after each of so many updates, the first ones included."""
    update, state = jax.jit(c.update), start_of_kernel()
    masks = [state.masks["kernel"]]
    for t in range(steps):
        grads = {"kernel": normal(6, 4, seed=t)}
        _, state = update(KERNEL, state, grads=grads)
        masks.append(state.masks["kernel"])
    return np.stack(masks)


@jax.jit
def updated_once(params, state, grads):
    return rigl(every=1).update(params, state, grads=grads)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def exchanged(weights, mask, scores, some):
    """One exchange, as its paper says it: the reference."""
    weights, mask, scores = (np.asarray(x).ravel() for x in (weights, mask, scores))
    kept = [i for i in range(mask.size) if mask[i]]
    dropped = sorted(kept, key=lambda i: (abs(weights[i]), i))[:some]
    left = [i for i in kept if i not in dropped]
    others = [i for i in range(mask.size) if i not in left]
    grown = sorted(others, key=lambda i: (-scores[i], i))[:some]
    new = np.zeros(mask.size, bool)
    new[left + grown] = True
    return new


@jax.jit
def one_exchange(params, grads, sparsity, drop):
    c = jc.rigl(sparsity, key=KEY, until=9, every=1, drop=lambda count: drop)
    state = c.init(params)
    new, after = c.update(params, state, grads=grads)
    return state, new, after, c.apply(new, after)["kernel"]


@hypothesis.given(
    # Few different values, so that ties are everywhere.
    weights=st.lists(st.integers(-2, 2), min_size=24, max_size=24),
    grads=st.lists(st.integers(-2, 2), min_size=24, max_size=24),
    drop=st.floats(0, 1, width=32),
    sparsity=st.sampled_from([0.0, 0.3, 0.75, 0.95]),
)
def test_an_exchange_is_that_of_the_paper(weights, grads, drop, sparsity):
    params, grads = (
        {"kernel": jnp.asarray(x, jnp.float32).reshape(6, 4)} for x in (weights, grads)
    )
    state, new, after, view = one_exchange(params, grads, sparsity, drop)
    mask = np.asarray(state.masks["kernel"])
    assert mask.sum() == 24 - round(24 * np.float32(sparsity))
    some = round(float(np.float32(drop) * np.float32(mask.sum())))
    expected = exchanged(params["kernel"], mask, abs(grads["kernel"]), some)
    np.testing.assert_array_equal(after.masks["kernel"].ravel(), expected)
    # What was dropped and grown again keeps its value; what is new starts at zero.
    both = mask & expected.reshape(6, 4)
    np.testing.assert_array_equal(view[both], params["kernel"][both])
    assert not view[~both].any() and not new["kernel"][~mask].any()


@pytest.mark.parametrize("make", [jc.rigl, jc.set_training])
def test_as_many_weights_all_the_time_and_others_each_time(make):
    c = make(0.6, key=KEY, until=8, every=2)
    states = listed(jax.jit(lambda p: trained(c, 12, p))(PARAMS))
    before = masks_of(states[0])
    assert abs(sum(m.sum() for m in before.values()) - 48) <= 1  # each leaf rounds
    for t, state in enumerate(states[1:], 1):
        masks = masks_of(state)
        for name, mask in masks.items():
            number = before[name].sum()
            assert mask.sum() == number
            share = 0.3 * (1 + math.cos(math.pi * t / 8)) / 2 if t <= 8 else 0
            grown = mask & ~before[name]
            assert grown.sum() <= (round(share * number) if t % 2 == 0 else 0)
            assert not state.params[name]["kernel"][grown].any()
        if t in (2, 4):
            assert any((masks[n] != before[n]).any() for n in masks)
        before = masks
        view = c.apply(state.params, state.compression)
        assert all(not view[n]["kernel"][~masks[n]].any() for n in masks)
        equal(view["a"]["bias"], state.params["a"]["bias"])
    assert (states[-1].params["a"]["bias"] != 1).all()


def test_random_masks_that_stay():
    c = prune.static_sparse(0.6, key=KEY)
    state = jax.jit(c.init)(KERNEL)
    equal(state.masks, start_of_kernel().masks)
    for _ in range(3):
        _, after = c.update(KERNEL, state)
        equal(after.masks, state.masks)


@jax.jit
def start(params, sparsity):
    return jc.rigl(sparsity, key=KEY, until=0).init(params)


@hypothesis.given(sparsity=st.floats(0, 0.96875, width=32))
def test_the_start_is_as_sparse_as_erdos_renyi_says(sparsity):
    # Density e (rows + columns) / (rows columns); what would exceed 1 is dense.
    keep = (1 - sparsity) * 120
    density = {"a": keep / 32 * 22 / 96, "b": keep / 32 * 10 / 24}
    if density["b"] > 1:
        density = {"a": (keep - 24) / 96, "b": 1.0}
    for name, mask in masks_of(start(PARAMS, sparsity)).items():
        assert abs(mask.sum() - density[name] * mask.size) <= 0.51


def test_set_is_a_function_of_its_key_and_a_member_of_a_sweep_equals_a_solo_run():
    def run(params, key):
        c = jc.set_training(0.6, key=key, until=8, every=1)
        state = c.init(params)
        return state.masks, c.update(params, state)[1].masks

    keys = jnp.stack([KEY, jax.random.key(6)])
    solo = jax.jit(run)
    first, again, other = (solo(KERNEL, keys[i]) for i in (0, 0, 1))
    equal(first, again)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True):
        assert (a != b).any()
    assert (first[0]["kernel"] != first[1]["kernel"]).any()
    together = jax.jit(jax.vmap(run, (None, 0)))(KERNEL, keys)
    for i, one in enumerate((first, other)):
        equal(jax.tree.map(lambda x, i=i: x[i], together), one)


def test_no_step_of_the_optimizer_is_skipped():
    tx = optax.adam(0.05)
    states = listed(jax.jit(lambda p: trained(rigl(every=4), 8, p, tx))(PARAMS))
    start, masks = states[4], states[4].compression.masks

    def held(p):
        return jax.tree.map(
            lambda p, m: p if m is None else jnp.where(m, p, 0.0),
            p, masks, is_leaf=lambda x: x is None,
        )  # fmt: skip

    # Plain Adam on a network whose mask stands, with Adam's state of the kept weights.
    params = held(start.params)
    count, mu, nu = start.opt_state[0]
    opt_state = (
        start.opt_state[0]._replace(mu=held(mu), nu=held(nu)),
        *start.opt_state[1:],
    )

    @jax.jit
    def step(params, opt_state):
        grads = jax.grad(lambda p: loss_fn(held(p), BATCH))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    for t in range(5, 9):
        params, opt_state = step(params, opt_state)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
            params, held(states[t].params),
        )  # fmt: skip
        assert int(states[t].opt_state[0].count) == t
    # The eighth step changed the masks, and was a step of the optimizer all the same.
    assert count == 4


def test_drop_takes_a_schedule_and_nothing_changes_after_the_end():
    masks = updated(rigl(drop=optax.constant_schedule(0.5), until=5), 8)
    assert [t for t in range(1, 9) if (masks[t] != masks[t - 1]).any()] == [2, 4]
    for still in (rigl(until=0, every=1), rigl(drop=0, every=1)):
        masks = updated(still, 2)
        assert (masks == masks[0]).all()


@pytest.mark.parametrize("number", [np.float32, jnp.float32])
def test_a_drop_of_any_kind_of_number(number):
    equal(updated(rigl(drop=number(0.25)), 2), updated(rigl(drop=0.25), 2))


@pytest.mark.parametrize(
    ("weight", "grad"), [(jnp.inf, 1.0), (-jnp.inf, 1.0), (1.0, jnp.nan)]
)
def test_as_many_weights_whatever_the_numbers(weight, grad):
    params, grads = ({"kernel": jnp.full((6, 4), x)} for x in (weight, grad))
    state = start_of_kernel()
    _, after = updated_once(params, state, grads)
    assert after.masks["kernel"].sum() == state.masks["kernel"].sum()


def test_a_batch_of_nan_that_the_optimizer_skips_costs_no_weights():
    tx = optax.apply_if_finite(optax.sgd(0.05), 3)
    init, step = jc.train_step(loss_fn, tx, rigl(every=1))
    state = jax.jit(init)(PARAMS)
    after, _ = step(state, BATCH * jnp.nan)
    assert masks_of(after)["a"].sum() == masks_of(state)["a"].sum()


def test_parameters_may_be_constants_of_a_traced_function():
    jax.eval_shape(lambda: rigl().init(KERNEL))


def test_growth_of_ones_own():
    def downwards(params, key, *, age, **extras):
        del key, extras
        return jax.tree.map(
            lambda p: -jnp.arange(p.size * 1.0).reshape(p.shape), params
        )

    c = prune.dynamic_sparse(
        0.5, grow=downwards, key=KEY, until=9, every=1, drop=lambda c: 1.0
    )
    state = start_of_kernel()
    _, after = jax.jit(c.update)(KERNEL, state, age=1)
    assert (
        after.masks["kernel"].ravel()[:10].all() and after.masks["kernel"].sum() == 10
    )
    with pytest.raises(TypeError, match="the score 'downwards' needs age=...: pass it"):
        c.update(KERNEL, state)


def test_what_is_wrong_is_said():
    c, state = rigl(), start_of_kernel()
    with pytest.raises(
        TypeError, match=r"needs grads=\.\.\.: pass it to pruner.update"
    ):
        c.update(KERNEL, state)
    with pytest.raises(TypeError, match="needs grads"):
        c.update(KERNEL, state, grads=None)
    for kwargs in ({"every": 0}, {"until": -1}):
        with pytest.raises(
            ValueError, match="every must be at least 1 and until at least 0"
        ):
            rigl(**kwargs)
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\] .* got drop=1.5"):
        rigl(drop=1.5)
    with pytest.raises(ValueError, match="sparsity must be in .* got 90.* mean 0.9"):
        jc.rigl(90, key=KEY, until=0)
    with pytest.raises(ValueError, match="'\\*/kernal' selected none of 4 leaves"):
        rigl(where="*/kernal").init(PARAMS)
    bad = {"kernel": jnp.full((2, 2), jnp.nan)}
    with pytest.raises(ValueError, match="'kernel' contains NaN"):
        rigl().init(bad)


@pytest.mark.parametrize("make", [jc.rigl, jc.set_training])
def test_masks_follow_their_weight_to_its_devices_and_nothing_is_gathered(make):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "x"))
    params = {"kernel": normal(64, 128)}
    grads = {"kernel": normal(64, 128, seed=1)}
    c = make(0.5, key=KEY, until=9, every=1)
    update = jax.jit(lambda p, s, g: c.update(p, s, grads=g))
    params, grads = jax.device_put((params, grads), place)
    state = jax.block_until_ready(jax.jit(c.init)(params))
    assert state.masks["kernel"].sharding.is_equivalent_to(place, 2)
    compiled = update.lower(params, state, grads).compile()
    text = str(compiled.as_text())
    assert "all-gather" not in text and "all-to-all" not in text
    new, after = jax.block_until_ready(compiled(params, state, grads))
    for array in (new["kernel"], after.masks["kernel"]):
        assert array.sharding.is_equivalent_to(place, 2)
    alone = jax.device_put((params, state, grads), jax.devices()[0])
    equal(after.masks, update(*alone)[1].masks)


def test_resumed_equals_uninterrupted(tmp_path):
    init, step = jc.train_step(loss_fn, optax.adam(0.05), rigl())
    state = start_state = jax.jit(init)(PARAMS)
    for t in range(5):
        if t == 3:
            jc.save_checkpoint(tmp_path, t, state)
        state, _ = step(state, BATCH)
    again = jc.restore_checkpoint(tmp_path, start_state)
    for _ in range(2):
        again, _ = step(again, BATCH)
    assert jax.tree.structure(again) == jax.tree.structure(state)
    equal(again, state)
    assert (masks_of(again)["a"] != masks_of(start_state)["a"]).any()
