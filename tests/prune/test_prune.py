# SPDX-License-Identifier: Apache-2.0
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcompress as jc

PARAMS = {
    "a": {"kernel": jax.random.normal(jax.random.key(0), (20, 10))},
    "b": {"kernel": 3 * jax.random.normal(jax.random.key(1), (10, 4))},
}


def kept(masks):
    return {name: int(m["kernel"].sum()) for name, m in masks.items()}


@hypothesis.given(sparsity=st.floats(0, 0.99))
def test_exactly_the_smallest_are_pruned(sparsity):
    kernel = PARAMS["a"]["kernel"]
    pruned = jc.compress(jc.magnitude_pruning(sparsity), {"kernel": kernel})["kernel"]
    count = round(np.float32(sparsity) * 200)
    expected = np.asarray(kernel).ravel().copy()
    expected[np.argsort(np.abs(expected), kind="stable")[:count]] = 0
    np.testing.assert_array_equal(pruned.ravel(), expected)


def test_a_schedule_ramps_and_masks_are_monotone():
    schedule = optax.polynomial_schedule(0.0, 0.9, 3, 10)
    pruner = jc.magnitude_pruning(schedule, every=2)
    params, state = PARAMS, pruner.init(PARAMS)
    assert kept(state.masks) == {"a": 200, "b": 40}
    for step in range(1, 13):
        before = state.masks["a"]["kernel"]
        noise = jax.random.normal(jax.random.key(step), (20, 10))
        params["a"]["kernel"] += 0.1 * noise  # an optimizer that also moves zeros
        params, state = pruner.update(params, state)
        after = state.masks["a"]["kernel"]
        assert not (after & ~before).any()
        if step % 2:
            np.testing.assert_array_equal(after, before)
        else:
            assert int((~after).sum()) == round(
                200 * float(jnp.asarray(schedule(step)))
            )
        assert not params["a"]["kernel"][~before].any()
        assert not pruner.apply(params, state)["a"]["kernel"][~after].any()
    assert int(state.count) == 12


def test_pruned_weights_get_no_gradient_and_a_nan_under_the_mask_stays_there():
    pruner = jc.magnitude_pruning(0.5)
    state = pruner.init(PARAMS)
    mask = state.masks["a"]["kernel"]
    params = {
        **PARAMS,
        "a": {"kernel": jnp.where(mask, PARAMS["a"]["kernel"], jnp.nan)},
    }

    def loss(p):
        return sum(jnp.sum(x**2) for x in jax.tree.leaves(pruner.apply(p, state)))

    grads = jax.grad(loss)(params)["a"]["kernel"]
    assert jnp.isfinite(loss(params)) and not grads[~mask].any()
    assert grads[mask].all()


def test_sparsity_zero_is_the_dense_optimizer_bit_for_bit():
    pruner, tx = jc.magnitude_pruning(0.0), optax.adam(0.1)

    def run(c):
        init, step = jc.train_step(lambda p, b: optax.tree.sum(p) * b, tx, c)
        state = init(PARAMS)
        for i in range(5):
            state, _ = step(state, jnp.float32(i))
        return state.params

    jax.tree.map(np.testing.assert_array_equal, run(pruner), run(jc.identity()))


def test_a_vmapped_member_equals_a_solo_run():
    def prune_by(amount, params):
        pruner = jc.magnitude_pruning(lambda count: amount)
        params, state = pruner.update(params, pruner.init(params))
        return pruner.apply(params, state)

    amounts = jnp.asarray([0.1, 0.5, 0.9])
    together = jax.vmap(prune_by, in_axes=(0, None))(amounts, PARAMS)
    for i, amount in enumerate(amounts):
        solo = prune_by(amount, PARAMS)
        jax.tree.map(
            lambda t, s, i=i: np.testing.assert_array_equal(t[i], s), together, solo
        )


def test_masks_follow_the_sharding_of_their_weight_and_nothing_is_gathered():
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    for spec in (("x", None), (None, "x")):
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
        kernel = jax.random.normal(jax.random.key(0), (64, 128))
        params = {"kernel": jax.device_put(kernel, place)}
        for budget in (jc.prune.erk, jc.prune.global_):
            pruner = jc.magnitude_pruning(0.9, budget=budget)
            state = jax.jit(pruner.init)(params)
            assert state.masks["kernel"].dtype == bool
            assert state.masks["kernel"].sharding.is_equivalent_to(place, 2)
            compiled = jax.jit(pruner.update).lower(params, state).compile()
            text = str(compiled.as_text())
            assert "all-gather" not in text and "all-to-all" not in text
            exchanged = re.findall(r"= (.*) all-reduce\(", text)
            assert exchanged
            for shapes in exchanged:  # counters, never weights or masks
                assert re.fullmatch(r"[(]?(u32\[\](, )?)+[)]?", shapes), shapes
            _, after = jax.block_until_ready(compiled(params, state))
            assert after.masks["kernel"].sharding.is_equivalent_to(place, 2)


def test_a_text_is_no_sparsity():
    with pytest.raises(TypeError, match="sparsity='0.9' is a text"):
        jc.magnitude_pruning("0.9")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("sparsity", "kwargs", "message"),
    [
        (90, {}, r"sparsity=90 is outside \[0, 1\). Did you mean 0.9\?"),
        (-0.1, {}, r"outside \[0, 1\)"),
        (1.0, {}, r"outside \[0, 1\)"),
        (0.5, {"every": 0}, "every=0"),
        (0.6, {"pattern": jc.prune.NOfM(2, 4)}, "NOfM.n=2, m=4.* reaches 0.5 at most"),
    ],
)
def test_bad_arguments(sparsity, kwargs, message):
    with pytest.raises(ValueError, match=message):
        jc.magnitude_pruning(sparsity, **kwargs)
