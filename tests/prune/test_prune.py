# SPDX-License-Identifier: Apache-2.0
import re
from typing import Any

import chex
import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import put
from examples import examples
from flax import nnx
from flax.core import freeze
from variants import marked

import jaxcompress as jc
from jaxcompress.prune import PruneState, prune
from jaxcompress.prune.budgets import erk, global_
from jaxcompress.prune.schedules import cubic

RNG = np.random.default_rng(0)
PARAMS = {
    "a": {"kernel": put(RNG.normal(size=(20, 10)))},
    "b": {"kernel": put(3 * RNG.normal(size=(10, 4)))},
}


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def moved(params, seed, scale=0.1):
    """As an optimizer would, that also moves zeros."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: put(np.asarray(p) + scale * rng.normal(size=p.shape), p.dtype), params
    )


SHAPES = [(7, 5), (3, 3, 2, 4), (1, 13), (4, 1, 6)]


@jax.jit
def mask_at(kernel, sparsity):
    return prune(lambda count: sparsity).init({"kernel": kernel}).masks["kernel"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@examples(8)
@hypothesis.given(
    sparsity=st.integers(0, 999).map(lambda n: n / 1000), seed=st.integers(0, 9999)
)
def test_exactly_the_smallest_are_pruned_ties_by_index(shape, dtype, sparsity, seed):
    drawn = np.random.default_rng(seed).integers(-4, 5, shape) / 4
    mask = mask_at(jnp.asarray(drawn, dtype), np.float32(sparsity))
    count = round(np.float32(sparsity) * np.float32(drawn.size))
    count = min(count, drawn.size - 1)  # one weight is left
    expected = np.ones(drawn.size, bool)
    expected[np.argsort(np.abs(drawn), axis=None, kind="stable")[:count]] = False
    np.testing.assert_array_equal(mask.ravel(), expected)


@pytest.mark.parametrize("budget", [erk, global_])
def test_a_schedule_ramps_and_masks_are_monotone(budget):
    schedule: Any = cubic(0.9, end=8)
    pruner = jc.magnitude_pruning(schedule, every=2, budget=budget)
    update = jax.jit(pruner.update)
    params, state = PARAMS, pruner.init(PARAMS)
    assert all(m.all() for m in jax.tree.leaves(state.masks))
    apply = jax.jit(pruner.apply)
    for step in range(1, 12):
        before = jax.tree.map(np.asarray, state.masks)
        params, state = update(moved(params, step), state)
        masks = jax.tree.map(np.asarray, state.masks)
        if step % 2:
            equal(masks, before)
        else:
            pruned = sum(int((~m).sum()) for m in jax.tree.leaves(masks))
            assert abs(pruned - 240 * float(schedule(step))) <= 1.1
        params, view = jax.tree.map(np.asarray, (params, apply(params, state)))
        for name, old in before.items():
            old, new = old["kernel"], masks[name]["kernel"]
            assert not (new & ~old).any()
            assert not params[name]["kernel"][~old].any()
            assert not view[name]["kernel"][~new].any()
    assert int(state.count) == 11


def test_pruned_weights_get_no_gradient():
    pruner = jc.magnitude_pruning(0.5)
    state = pruner.init(PARAMS)

    @jax.jit
    def gradient(p):
        return jax.grad(
            lambda p: sum(
                jnp.sum(x**2) for x in jax.tree.leaves(pruner.apply(p, state))
            )
        )(p)

    mask = state.masks["a"]["kernel"]
    grads = gradient(PARAMS)["a"]["kernel"]
    assert not grads[~mask].any() and grads[mask].all()


def test_a_nan_is_named_outside_of_jit_and_kept_inside():
    broken = {**PARAMS, "b": {"kernel": PARAMS["b"]["kernel"].at[3, 2].set(jnp.nan)}}
    pruner = jc.magnitude_pruning(0.9, budget=global_)
    with pytest.raises(ValueError, match="'b/kernel' contains NaN, in its weights"):
        pruner.init(broken)
    state = jax.jit(pruner.init)(broken)
    assert jnp.isnan(pruner.apply(broken, state)["b"]["kernel"][3, 2])
    good = state._replace(kept=jax.tree.map(jnp.ones_like, state.kept))
    with pytest.raises(ValueError, match="'b/kernel' contains NaN"):
        pruner.update(broken, good)
    params, state = jax.jit(pruner.update)(broken, good)
    assert jnp.isnan(pruner.apply(params, state)["b"]["kernel"][3, 2])


def member(amount, params):
    """Four updates at one sparsity, as part of a sweep or alone."""
    pruner = prune(lambda count: amount * jnp.minimum(count, 3) / 3, budget=global_)

    def one(carry, shift):
        params, state = carry
        params = jax.tree.map(lambda p: p + jnp.roll(p, 1) * shift, params)
        return pruner.update(params, state), None

    start = params, pruner.init(params)
    (params, state), _ = jax.lax.scan(one, start, jnp.asarray([0.25, -0.5, 0.5, 0.25]))
    return pruner.apply(params, state), state


def test_a_vmapped_member_equals_a_solo_run():
    amounts = jnp.asarray([0.0, 0.5, 0.9])
    together = jax.jit(jax.vmap(member, in_axes=(0, None)))(amounts, PARAMS)
    alone = jax.jit(member)
    for i, amount in enumerate(amounts):
        equal(jax.tree.map(lambda t, i=i: t[i], together), alone(amount, PARAMS))


def test_a_sweep_that_shares_its_count_keeps_the_conditional():
    pruner = prune(cubic(0.8, end=4), every=2)
    axes = PruneState(count=None, kept=0, memory=0, trigger=0)  # pyright: ignore[reportArgumentType]
    many = jax.tree.map(lambda p: jnp.stack([p, 2 * p[::-1], p[:, ::-1]]), PARAMS)
    state = jax.vmap(pruner.init, out_axes=axes)(many)
    assert state.count.shape == () and state.masks["a"]["kernel"].shape == (3, 20, 10)
    update = jax.jit(jax.vmap(pruner.update, in_axes=(0, axes), out_axes=(0, axes)))
    text = str(update.lower(many, state).compile().as_text())
    assert "conditional(" in text
    batched = jax.jit(jax.vmap(pruner.update))
    each = state._replace(count=jnp.zeros(3, jnp.int32))
    assert "conditional(" not in str(batched.lower(many, each).compile().as_text())

    solo_update = jax.jit(pruner.update)
    solos = [jax.tree.map(lambda p, i=i: p[i], many) for i in range(3)]
    states = [pruner.init(solo) for solo in solos]
    for _ in range(4):
        many, state = update(many, state)
        pairs = [solo_update(*pair) for pair in zip(solos, states, strict=True)]
        solos, states = map(list, zip(*pairs, strict=True))
    for i in range(3):
        equal(jax.tree.map(lambda p, i=i: p[i], many), solos[i])
        equal(jax.tree.map(lambda p, i=i: p[i], state.masks), states[i].masks)


def loss_fn(view, batch):
    hidden = jnp.tanh(batch @ view["a"]["kernel"])
    return jnp.mean((hidden @ view["b"]["kernel"] - 1) ** 2)


BATCH = put(RNG.normal(size=(8, 20)))


def test_resumed_equals_uninterrupted_to_the_bit(tmp_path):
    pruner = prune(
        cubic(0.8, end=5),
        score=jc.prune.scores.averaged(jc.prune.scores.saliency),
        pruned=jc.prune.treatments.sr_ste(1e-2),
        every=jc.prune.schedules.converged(1, tolerance=9),
    )
    init, step = jc.train_step(loss_fn, optax.adam(0.05), pruner)
    state = init(PARAMS)
    for i in range(7):
        if i == 3:
            jc.save_checkpoint(tmp_path, i, state)
        state, _ = step(state, BATCH)
    resumed = jc.restore_checkpoint(tmp_path, init(PARAMS))
    for _ in range(4):
        resumed, _ = step(resumed, BATCH)
    equal(resumed, state)
    assert not jax.tree.leaves(state.compression.masks)[0].all()


def test_a_hundred_updates_scan_in_one_trace():
    pruner = jc.magnitude_pruning(cubic(0.9, end=80), every=7, budget=global_)

    @chex.assert_max_traces(n=1)
    def one(carry, i):
        params, state = carry
        params = jax.tree.map(lambda p: p + 0.01 * jnp.cos(i + p), params)
        return pruner.update(params, state), None

    @jax.jit
    def run(params):
        start = params, pruner.init(params)
        return jax.lax.scan(one, start, jnp.arange(100.0))[0]  # pyright: ignore[reportArgumentType]

    params, state = run(PARAMS)
    assert int(state.count) == 100
    kept = sum(int(m.sum()) for m in jax.tree.leaves(state.masks))
    assert kept == 24
    equal(pruner.apply(params, state), pruner.finalize(params, state))


def test_without_a_call_of_update_the_view_is_sparse_still():
    pruner = jc.magnitude_pruning(0.75)
    state = pruner.init(PARAMS)
    view = pruner.apply(moved(PARAMS, 1, 10), state)
    for leaf in jax.tree.leaves(view):
        assert int((leaf != 0).sum()) == leaf.size // 4


def test_masks_of_bfloat16_parameters():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), PARAMS)
    pruner = jc.magnitude_pruning(cubic(0.5, end=3), budget=global_)
    update = jax.jit(pruner.update)
    state = pruner.init(params)
    for _ in range(3):
        params, state = update(params, state)
    view = pruner.apply(params, state)
    assert all(x.dtype == jnp.bfloat16 for x in jax.tree.leaves((params, view)))
    assert sum(int((x == 0).sum()) for x in jax.tree.leaves(view)) == 120


KERNEL, SMALL = PARAMS["a"]["kernel"], PARAMS["b"]["kernel"]
TREES = {
    "a bare array": lambda: KERNEL,
    "a tuple": lambda: (KERNEL, (jnp.ones(3), SMALL)),
    "nested lists": lambda: [[KERNEL, None], [[SMALL]], jnp.ones(3)],
    "a FrozenDict": lambda: freeze({"x": {"kernel": KERNEL, "bias": jnp.ones(10)}}),
    "an nnx.State": lambda: nnx.state(nnx.Linear(6, 4, rngs=nnx.Rngs(0))),
    "an Equinox module": lambda: eqx.filter(
        eqx.nn.MLP(4, 2, 6, 1, key=jax.random.key(0)), eqx.is_array
    ),
}


@pytest.mark.parametrize("name", marked(TREES, slow=("a tuple", "a FrozenDict")))
def test_any_tree(name):
    params = TREES[name]()
    unnamed = name in ("a bare array", "a tuple", "nested lists")
    where = (lambda path, leaf: leaf.ndim == 2) if unnamed else jc.is_weight
    pruner = jc.magnitude_pruning(0.5, budget=global_, where=where)
    after, state = jax.jit(pruner.update)(params, jax.jit(pruner.init)(params))
    view = pruner.finalize(after, state)
    assert jax.tree.structure(after) == jax.tree.structure(params)
    assert jax.tree.structure(view) == jax.tree.structure(params)
    zeros = weights = 0
    for x, v in zip(*map(jax.tree.leaves, (params, view)), strict=True):
        np.testing.assert_array_equal(v[v != 0], x[v != 0])
        if x.ndim == 2:
            zeros, weights = zeros + int((v == 0).sum()), weights + x.size
        else:
            np.testing.assert_array_equal(v, x)
    assert zeros == weights // 2 > 0


@pytest.mark.parametrize("axis", [0, 1])
def test_masks_follow_the_sharding_of_their_weight_and_nothing_is_gathered(axis):
    mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = ["x" if i == axis else None for i in range(2)]
    place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    kernel = put(RNG.normal(size=(64, 128)))
    params = {"kernel": jax.device_put(kernel, place)}
    for budget in (erk, global_):
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


def test_a_traced_sparsity_is_taken_as_it_is():
    @jax.jit
    def kept(amount):
        state = jc.magnitude_pruning(amount).init(PARAMS)
        return sum(jnp.sum(m) for m in jax.tree.leaves(state.masks))

    assert [int(kept(s)) for s in (0.0, 0.5, 0.9)] == [240, 120, 24]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"score": jc.prune.scores.fisher},
            r"score must take .* got fisher.* call it: fisher\(\)",
        ),
        ({"score": lambda params: params}, "Your own score must end with \\*\\*extras"),
        ({"score": "magnitude"}, "score must be a function .* got 'magnitude'"),
        (
            {"pruned": jc.prune.treatments.sr_ste},
            "pruned must be zeroed, .* got sr_ste",
        ),
    ],
    ids=["a factory", "no extras", "a text", "what becomes of weights"],
)
def test_what_was_not_called_is_named(kwargs, message):
    with pytest.raises(TypeError, match=message):
        prune(0.5, **kwargs)


def test_a_text_is_no_sparsity():
    with pytest.raises(TypeError, match="sparsity must be a number or .* got '0.9'"):
        jc.magnitude_pruning("0.9")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("sparsity", "kwargs", "message"),
    [
        (90, {}, r"sparsity must be in \[0, 1\), got 90. Did you mean 0.9\?"),
        (-0.1, {}, r"must be in \[0, 1\)"),
        (1.0, {}, r"must be in \[0, 1\)"),
        (float("nan"), {}, r"must be in \[0, 1\)"),
        (jnp.float32(3.0), {}, r"must be in \[0, 1\)"),
        (0.5, {"every": 0}, "every=0"),
        (
            0.6,
            {"pattern": jc.prune.patterns.NOfM(2, 4)},
            "at most 0.5 with NOfM.n=2, m=4.*, got 0.6",
        ),
    ],
)
def test_bad_arguments(sparsity, kwargs, message):
    with pytest.raises(ValueError, match=message):
        jc.magnitude_pruning(sparsity, **kwargs)
