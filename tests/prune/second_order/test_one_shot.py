# SPDX-License-Identifier: Apache-2.0
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from draws import normal
from layer_problems import layer

import jaxcompress as jc
from jaxcompress.prune import fisher_pruning, obs_pruning, sparsegpt_pruning
from jaxcompress.prune.budgets import global_
from jaxcompress.prune.patterns import NOfM, unstructured
from jaxcompress.prune.scores import fisher_blocks
from jaxcompress.prune.second_order import (
    OneShotState,
    optimal_brain_surgeon,
    row_grid,
    sparsegpt,
)


def compress(pruner, params, **extras):
    """``jc.compress``, as one compiled program."""
    return jax.jit(lambda p, x: jc.compress(pruner, p, **x))(params, extras)


def gram(fn, params, x):
    return jc.observe(fn, params, [x], jc.program.statistics.gram())


def two_layers(dtype=jnp.float32):
    params = {
        name: {"kernel": normal(8, 8, seed=i).astype(dtype), "bias": jnp.zeros(8)}
        for i, name in enumerate(["Dense_0", "Dense_1"])
    }
    x = normal(64, 8, seed=9)

    def fn(params, x):
        for name in ("Dense_0", "Dense_1"):
            x = jnp.tanh(x @ params[name]["kernel"] + params[name]["bias"][None])
        return x

    def loss_fn(params, x):
        return jnp.sum(fn(params, x) ** 2)

    return params, {
        "stats": gram(fn, params, x),
        "fisher": fisher_blocks(loss_fn, params, x, 8),
    }


PRUNERS = {"obs": obs_pruning, "sparsegpt": sparsegpt_pruning, "fisher": fisher_pruning}


@functools.cache
def pruned_by(name):
    """Two layers, what is known of them, and the two after pruning by 75 %."""
    params, extras = two_layers()
    pruner = PRUNERS[name](0.75)
    update = jax.jit(pruner.update)
    return params, extras, pruner, update(params, pruner.init(params), **extras)


@pytest.mark.parametrize("name", PRUNERS)
def test_statistics_prune_once_and_training_keeps_the_pattern(name):
    params, extras, pruner, (pruned, state) = pruned_by(name)
    start = pruner.init(params)
    assert isinstance(start, OneShotState) and start.count == 0
    assert all(mask.all() for mask in jax.tree.leaves(start.masks))
    assert start.masks["Dense_0"]["bias"] is None
    early, same = pruner.update(params, start)  # trained before it is pruned
    jax.tree.map(np.testing.assert_array_equal, early, params)
    assert same.count == 0

    zeros = [pruned[name]["kernel"] == 0 for name in params]
    assert state.count == 1 and sum(int(z.sum()) for z in zeros) == 96
    for name_, zero in zip(params, zeros, strict=True):
        mask = state.masks[name_]["kernel"]
        np.testing.assert_array_equal(mask, ~zero)
        moved = jnp.where(mask, params[name_]["kernel"] - pruned[name_]["kernel"], 0)
        assert jnp.abs(moved).max() > 0.01  # what is kept makes up for what is not
        np.testing.assert_array_equal(pruned[name_]["bias"], params[name_]["bias"])

    trained, after = pruner.update(jax.tree.map(lambda p: p + 1, pruned), state)
    assert after.count == 1
    for name_, zero in zip(params, zeros, strict=True):
        np.testing.assert_array_equal(trained[name_]["kernel"] == 0, zero)
    view = pruner.apply(jax.tree.map(lambda p: p + 1, pruned), state)
    jax.tree.map(np.testing.assert_array_equal, view, trained)


@pytest.mark.slow  # the third law
@pytest.mark.parametrize("name", PRUNERS)
def test_jit_agrees_with_eager_execution(name):
    params, extras, pruner, (pruned, _) = pruned_by(name)
    eager = jc.compress(pruner, params, **extras)
    for name_ in params:
        np.testing.assert_allclose(
            eager[name_]["kernel"], pruned[name_]["kernel"], rtol=1e-4, atol=1e-5
        )


def test_shipping_what_was_never_pruned_warns():
    with pytest.warns(
        UserWarning, match="no weight is pruned: no update was given stats"
    ):
        jc.compress(sparsegpt_pruning(0.5), two_layers()[0])


@pytest.mark.parametrize("name", PRUNERS)
def test_shipping_what_was_never_pruned_is_warned_of(name):
    params, extras, pruner, _ = pruned_by(name)
    argument = "fisher" if name == "fisher" else "stats"
    with pytest.warns(UserWarning, match=f"no update was given {argument}="):
        same = jc.compress(pruner, params)
    jax.tree.map(np.testing.assert_array_equal, same, params)


def test_a_leaf_is_pruned_as_its_matrix_is():
    params, extras, _, (obs, _) = pruned_by("obs")
    _, _, _, (gpt, _) = pruned_by("sparsegpt")
    for name in params:
        w, h = params[name]["kernel"], extras["stats"][name]["kernel"].gram
        alone, _ = optimal_brain_surgeon(w, h, 48)
        np.testing.assert_allclose(obs[name]["kernel"], alone, rtol=1e-4, atol=1e-5)
        alone, _ = sparsegpt(w, h, 0.75)
        np.testing.assert_allclose(gpt[name]["kernel"], alone, rtol=1e-4, atol=1e-5)


def convolution(features, groups):
    model = nn.Conv(features, (3, 3), feature_group_count=groups, use_bias=False)
    x = normal(6, 5, 5, 4)
    params = {"kernel": normal(3, 3, 4 // groups, features)}
    return (lambda p, x: model.apply({"params": p}, x)), params, x


def layers():
    x = normal(32, 8)
    params = {"kernel": normal(3, 8, 8)}

    def fn(params, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["kernel"])[
            0
        ]

    return fn, params, x


CASES = {
    "convolution": (convolution(6, 1), jc.Axes(outputs=-1)),
    "grouped": (convolution(6, 2), jc.Axes(outputs=-1)),
}


@pytest.mark.parametrize("case", CASES)
def test_other_layouts_are_pruned_matrix_by_matrix(case):
    (fn, params, x), axes = CASES[case]
    stats = gram(fn, params, x)
    hs = stats["kernel"].gram.reshape(-1, *stats["kernel"].gram.shape[-2:])

    def matrices(kernel):
        return np.split(kernel.reshape(-1, 6), len(hs), axis=1)  # groups of outputs

    pruner = sparsegpt_pruning(0.5, axes=axes, block=8)
    small = jax.jit(pruner.update)(params, pruner.init(params), stats=stats)[0]
    alone = jax.jit(lambda w, h: sparsegpt(w, h, 0.5, block=8)[0])
    split = matrices(params["kernel"])
    for w, h, found in zip(split, hs, matrices(small["kernel"]), strict=True):
        np.testing.assert_allclose(found, alone(w, h), rtol=1e-3, atol=1e-4)


def test_layers_in_a_scan_share_their_count_evenly():
    fn, params, x = layers()
    stats = gram(fn, params, x)
    axes = jc.weight_axes(fn, params, x)
    pruner = obs_pruning(0.5, axes=axes)
    small = jax.jit(pruner.update)(params, pruner.init(params), stats=stats)[0]
    alone = jax.jit(optimal_brain_surgeon)
    for found, w, h in zip(
        small["kernel"], params["kernel"], stats["kernel"].gram, strict=True
    ):
        expected, _ = alone(w, h, 32)
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_equinox_weights_are_transposed():
    params, extras, pruner, (pruned, _) = pruned_by("sparsegpt")
    flipped = {"weight": params["Dense_0"]["kernel"].T}
    known = extras["stats"]["Dense_0"]["kernel"]
    stats = {"weight": known._replace(squares=known.squares.T)}
    small = compress(pruner, flipped, stats=stats)
    np.testing.assert_allclose(
        small["weight"].T, pruned["Dense_0"]["kernel"], rtol=1e-4, atol=1e-5
    )


@pytest.mark.slow
def test_patterns_budgets_and_half_floats_are_kept():
    params, extras = two_layers(jnp.bfloat16)
    stats = extras["stats"]
    pattern = NOfM(2, 4)
    for pruner in (
        obs_pruning(0.5, pattern=pattern),
        sparsegpt_pruning(0.5, pattern=pattern),
    ):
        small = compress(pruner, params, **extras)
        for name in params:
            kernel = small[name]["kernel"]
            assert kernel.dtype == jnp.bfloat16
            assert ((kernel.reshape(2, 4, 8) != 0).sum(1) == 2).all()
    flat = {**params, "Dense_1": jax.tree.map(lambda p: p / 100, params["Dense_1"])}
    small = compress(
        obs_pruning(0.5, budget=global_, pattern=unstructured), flat, stats=stats
    )
    kept = [jnp.mean(layer["kernel"] != 0) for layer in small.values()]
    assert kept[1] < 0.1 and sum(kept) == 1


def test_joint_quantization_is_what_the_quantizer_then_finds():
    w, h = layer(16, 4)
    w[0] = 4.0 * np.sign(
        w[0]
    )  # large weights of a feature that stays: they set the scale
    params = {"kernel": jnp.asarray(w, jnp.float32)}
    stats = {
        "kernel": jc.program.statistics.Gram(jnp.uint32(1), jnp.asarray(h, jnp.float32))
    }
    grid = row_grid(jc.formats.Int(4))
    both = compress(sparsegpt_pruning(0.5, quantize=grid), params, stats=stats)
    int4 = jc.weight_quantization(bits=4, granularity=jc.PerChannel())
    codes = jc.compress(int4, both)["kernel"]
    np.testing.assert_allclose(codes.dense(), both["kernel"], rtol=1e-6)


def test_a_schedule_prunes_gradually():
    params, extras = two_layers()
    ramp = optax.linear_schedule(0.0, 0.75, 3)
    pruner = obs_pruning(ramp, pattern=unstructured)
    state, before = pruner.init(params), None
    update = jax.jit(pruner.update)
    for count, kept in [(1, 96), (2, 64), (3, 32)]:
        params, state = update(params, state, stats=extras["stats"])
        masks = jnp.stack([layer["kernel"] for layer in state.masks.values()])
        assert state.count == count and int(masks.sum()) == kept
        assert before is None or not (masks & ~before).any()
        before = masks


def test_one_leaf_at_a_time():
    params, extras = two_layers()
    pruner = jc.partition(
        {
            "*0/kernel": obs_pruning(0.5, pattern=unstructured),
            "*1/kernel": sparsegpt_pruning(0.75),
        }
    )
    small = compress(pruner, params, **extras)
    zeros = [int((layer["kernel"] == 0).sum()) for layer in small.values()]
    assert zeros == [32, 48]


@pytest.mark.parametrize("name", PRUNERS)
def test_missing_statistics_are_named_with_the_way_out(name):
    params, extras, pruner, _ = pruned_by(name)
    argument = "fisher" if name == "fisher" else "stats"
    state = pruner.init(params)
    partly = {**extras[argument], "Dense_1": {"kernel": None, "bias": None}}
    with pytest.raises(ValueError) as error:
        pruner.update(params, state, **{argument: partly})
    assert "'Dense_1/kernel' is selected" in str(error.value)
    fix = (
        "fisher_blocks(loss_fn" if name == "fisher" else "observe(fn, params, batches,"
    )
    assert fix in str(error.value)
    other = jax.tree.map(lambda p: jnp.abs(p), params)  # such as input magnitudes
    with pytest.raises(ValueError, match="Dense_0/kernel' is selected, but .* Arr"):
        pruner.update(params, state, **{argument: other})
    with pytest.raises(
        ValueError, match=f"{argument}= must be a tree like the parameters"
    ):
        pruner.update(params, state, **{argument: {"Dense_0": partly["Dense_0"]}})


def test_bad_sparsities_are_refused():
    for pruning in PRUNERS.values():
        with pytest.raises(
            ValueError, match="must be in .0, 1., got 50. Did you mean 0.5"
        ):
            pruning(50)
    with pytest.raises(ValueError, match="sparsity must be 0.5 for the pattern 2 of 4"):
        sparsegpt_pruning(0.6, pattern=NOfM(2, 4))
    with pytest.raises(
        ValueError, match="sparsity must be at most 0.5 with NOfM.*, got 0.6"
    ):
        obs_pruning(0.6, pattern=NOfM(2, 4))
    assert sparsegpt_pruning(2 / 3, pattern=NOfM(1, 3))


@pytest.mark.parametrize("name", PRUNERS)
def test_no_layer_vanishes_and_a_schedule_that_is_nan_holds_the_masks(name):
    params, extras = two_layers()
    small = compress(PRUNERS[name](0.9999), params, **extras)
    kept = [int((small[layer]["kernel"] != 0).sum()) for layer in params]
    assert min(kept) == 1

    def after_one(count):
        return jnp.where(jnp.asarray(count) > 1, jnp.nan, 0.5)

    pruner = PRUNERS[name](after_one)
    params, state = jax.jit(pruner.update)(params, pruner.init(params), **extras)
    with pytest.raises(ValueError, match="the schedule gives nan at count 2"):
        pruner.update(params, state, **extras)
    again, after = jax.jit(pruner.update)(params, state, **extras)
    for old, new in zip(
        jax.tree.leaves((params, state.masks)),
        jax.tree.leaves((again, after.masks)),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)
