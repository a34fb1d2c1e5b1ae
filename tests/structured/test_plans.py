# SPDX-License-Identifier: Apache-2.0
"""Plans as data: files, slices of every tree, functions of every mode."""

import collections
import re
import subprocess
import sys
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec as P
from prunable import IMAGES
from two_paths import GROUPS, PARAMS, X, fn, make

import jaxcompress as jc
from jaxcompress.structured import Plan, PlanError, mask_params, slice_params, verify

HALF = {"up/kernel[1]": np.arange(12) % 2 == 0, "down/kernel[1]": np.arange(8) < 4}
PLAN = GROUPS.plan(HALF)


def test_a_plan_survives_its_file(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == PLAN


def test_a_plan_gives_the_same_network_in_a_new_process(tmp_path):
    PLAN.save(tmp_path / "plan.json")
    small = slice_params(PARAMS, PLAN)
    out = jax.jit(jc.shrink(fn, PLAN))(small, X)
    script = (
        "import sys, jax, numpy as np, jaxcompress as jc\n"
        "sys.path.insert(0, 'tests/helpers')\n"
        "from two_paths import PARAMS, X, fn\n"
        f"plan = jc.structured.Plan.load({str(tmp_path / 'plan.json')!r})\n"
        "small = jc.structured.slice_params(PARAMS, plan)\n"
        f"np.save({str(tmp_path / 'out.npy')!r}, jax.jit(jc.shrink(fn, plan))(small, X))\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), out, rtol=1e-5)


@pytest.mark.parametrize("cut", [0, 1, 20, 0.5, 0.9])
def test_a_damaged_file_is_refused(tmp_path, cut):
    text = PLAN.to_json()
    place = int(cut * len(text)) if isinstance(cut, float) else cut
    for damaged in (text[:place], text[:place] + "9" + text[place + 1 :]):
        if damaged == text:
            continue
        (tmp_path / "plan.json").write_text(damaged)
        with pytest.raises(PlanError):
            Plan.load(tmp_path / "plan.json")


def test_bad_masks_are_refused():
    shapes = {"w": (2, 3)}
    for masks, text in [
        ({("w", 1): [True, False]}, r"must be bool \[3\], got bool \[2\]"),
        ({("w", 1): [1, 0, 1]}, r"must be bool \[3\], got int64 \[3\]"),
        ({("w", 2): [True]}, "axis 2 of 'w', which is unknown"),
        ({("v", 0): [True]}, "axis 0 of 'v', which is unknown"),
        ({("w", 1): [False] * 3}, "at least one index of axis 1 of 'w'"),
    ]:
        with pytest.raises(PlanError, match=text):
            Plan(masks, shapes)
    with pytest.raises(PlanError, match="for parameters of other paths or shapes"):
        GROUPS.macs(Plan({}, shapes))
    with pytest.raises(TypeError, match="takes masks by group, got a Plan"):
        GROUPS.plan(PLAN)  # pyright: ignore[reportArgumentType]
    with pytest.raises(PlanError, match="there is no group 'x'"):
        GROUPS.plan({"x": np.ones(2, bool)})
    with pytest.raises(PlanError, match="is frozen: an output of the network"):
        GROUPS.plan({"out/kernel[1]": np.arange(3) < 1})


@pytest.mark.slow
def test_state_of_the_optimizer_is_sliced_with_the_parameters():
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    state: Any = tx.init(PARAMS)
    grads = jax.grad(lambda p: jnp.square(fn(p, X)).sum())(PARAMS)
    _, state = tx.update(grads, state, PARAMS)
    small: Any = slice_params(state, PLAN)
    wanted = tx.init(slice_params(PARAMS, PLAN))
    assert jax.tree.map(jnp.shape, small) == jax.tree.map(jnp.shape, wanted)
    np.testing.assert_array_equal(
        small[1][0].mu["up"]["kernel"],
        state[1][0].mu["up"]["kernel"][:4, ::2],
    )


def test_students_are_cut_by_the_same_plan():
    student, small = jc.distill.take_slices(PARAMS, PLAN), slice_params(PARAMS, PLAN)
    jax.tree.map(np.testing.assert_array_equal, student, small)


def test_trees_that_do_not_fit_are_refused():
    with pytest.raises(PlanError, match="none of the plan's leaves, such as"):
        slice_params({"other": jnp.ones(3)}, PLAN)
    small = slice_params(PARAMS, PLAN)
    with pytest.raises(PlanError, match="it was pruned already"):
        slice_params(small, PLAN)
    factored = optax.adafactor(1e-3, min_dim_size_to_factor=2).init(PARAMS)
    with pytest.raises(PlanError, match="has to be initialized again"):
        slice_params(factored, PLAN)
    with pytest.raises(PlanError, match="call slice_params on the parameters first"):
        jc.shrink(fn, PLAN)(PARAMS, X)
    with pytest.raises(PlanError, match="do not have the same leaves"):
        jc.shrink(fn, PLAN)({"in": PARAMS["in"]}, X)


def test_a_plan_that_leaves_out_a_coupled_axis_is_refused():
    masks = {key: mask for key, mask in PLAN.items() if key != ("down/kernel", 0)}
    half = Plan(masks, PLAN.shapes)
    with pytest.raises(PlanError, match="coupled with axes that the plan prunes"):
        jc.shrink(fn, half)(slice_params(PARAMS, half), X)


def test_a_plan_that_a_function_cannot_follow_is_refused():
    def ordered(params, x):
        return (
            jnp.cumsum(fn(params, x) + (x @ params["in"]["kernel"]).sum(), -1)
            + (jnp.sort(x @ params["in"]["kernel"])[:, :3])
        )

    with pytest.raises(PlanError, match="order of the indices matters .sort"):
        jc.shrink(ordered, PLAN)(slice_params(PARAMS, PLAN), X)


def test_a_plan_fits_training_mode():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, train=True):
            x = nn.Conv(4, (3, 3))(x)
            x = nn.relu(nn.BatchNorm(use_running_average=not train)(x))
            return nn.Dense(2)(x.mean((1, 2)))

    net = Net()
    variables = net.init(jax.random.key(0), IMAGES)
    groups = jc.trace_axes(lambda v, x: net.apply(v, x, train=False), variables, IMAGES)
    (name,) = groups.prunable
    plan = groups.plan({name: np.array([True, False, True, False])})

    def train_fn(v, x):
        return net.apply(v, x, mutable=["batch_stats"])

    small = jax.jit(jc.shrink(train_fn, plan))(slice_params(variables, plan), IMAGES)
    full = jax.jit(train_fn)(mask_params(variables, plan), IMAGES)
    np.testing.assert_allclose(small[0], full[0], atol=1e-5)
    statistics = slice_params({"batch_stats": full[1]["batch_stats"]}, plan)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), small[1], statistics
    )
    # A part of the variables can be sliced alone.
    part = slice_params(variables["batch_stats"], plan)
    assert jax.tree.leaves(part)[0].shape == (2,)


def test_verify_says_how_far_masked_and_sliced_are_apart():
    result = verify(fn, PARAMS, PLAN, X)
    assert result.error <= 1e-5 * result.scale
    with pytest.raises(PlanError, match="outputs are not finite"):
        verify(fn, PARAMS, PLAN, X * jnp.nan)


def test_verify_traces_once():
    traced = []

    def counted(params, x):
        traced.append(x.shape)
        return fn(params, x)

    verify(counted, PARAMS, PLAN, X)
    assert traced == [X.shape]


def test_the_small_program_is_that_of_a_network_built_small():
    # This function takes parameters of any width.
    small = slice_params(PARAMS, PLAN)

    def operations(function):
        compiled = str(jax.jit(function).lower(small, X).compile().as_text())
        return collections.Counter(re.findall(r"= \S+ ([\w-]+)\(", compiled))

    assert operations(jc.shrink(fn, PLAN)) == operations(fn)
    np.testing.assert_array_equal(
        jax.jit(jc.shrink(fn, PLAN))(small, X), jax.jit(fn)(small, X)
    )


def test_the_small_function_is_exported():
    small = slice_params(PARAMS, PLAN)
    shrunk = jc.shrink(fn, PLAN)
    exported = jax.export.export(jax.jit(shrunk))(small, X)
    np.testing.assert_allclose(exported.call(small, X), jax.jit(shrunk)(small, X))


@pytest.mark.slow
def test_the_small_function_can_be_quantized_and_packed(tmp_path):
    small, shrunk = slice_params(PARAMS, PLAN), jc.shrink(fn, PLAN)
    int8 = jc.weight_quantization(bits=8)
    packed = jc.compress(int8, small)
    jc.save(tmp_path / "model.jc", packed)
    loaded = jc.load(tmp_path / "model.jc")
    np.testing.assert_array_equal(
        shrunk(jc.dense(loaded), X), shrunk(int8.apply(small, int8.init(small)), X)
    )


@pytest.mark.parametrize("explicit", [True, False])
def test_sharded_groups_stay_sharded(explicit):
    kind = (jax.sharding.AxisType.Explicit if explicit else jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("model",), axis_types=kind)
    params = make(stream=16, hidden=8)
    groups = jc.trace_axes(fn, params, X)
    plan = groups.plan({"down/kernel[1]": np.arange(16) % 2 == 0})
    spec = NamedSharding(mesh, P(None, "model"))
    placed = {**params, "in": {"kernel": jax.device_put(params["in"]["kernel"], spec)}}
    found = jc.structured.scores.l2(groups, placed)
    for name, score in jc.structured.scores.l2(groups, params).items():
        np.testing.assert_allclose(found[name], score, rtol=1e-5)
    small = slice_params(placed, plan)
    assert small["in"]["kernel"].sharding.is_equivalent_to(spec, 2)
    x = jax.device_put(X, NamedSharding(mesh, P()))
    rest = jax.tree.map(
        lambda leaf: (
            leaf
            if isinstance(leaf.sharding, NamedSharding)
            else jax.device_put(leaf, NamedSharding(mesh, P()))
        ),
        small,
    )
    out = jax.jit(jc.shrink(fn, plan))(rest, x)
    wanted = jc.shrink(fn, plan)(slice_params(params, plan), X)
    np.testing.assert_allclose(out, wanted, rtol=1e-5, atol=1e-5)


def test_batches_of_any_size_share_a_plan():
    small, shrunk = slice_params(PARAMS, PLAN), jax.jit(jc.shrink(fn, PLAN))
    many = jnp.concatenate([X, X, X])
    np.testing.assert_allclose(shrunk(small, many)[:5], shrunk(small, X), rtol=1e-5)
