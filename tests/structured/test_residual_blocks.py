# SPDX-License-Identifier: Apache-2.0
"""Depth: residual blocks that are removed whole."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from prunable import CASES
from two_paths import GROUPS, PARAMS, X, fn

import jaxcompress as jc
from jaxcompress.structured import (
    Plan,
    PlanError,
    block_scores,
    mask_params,
    slice_params,
    trace_blocks,
    verify,
)

BLOCKS = {"resnet": 4, "resnet, padded shortcut": 3, "mobilenet": 1, "vit": 2}


@pytest.mark.parametrize("name", BLOCKS)
def test_networks_without_blocks_compute_what_masked_ones_do(name):
    case = CASES[name]()
    blocks = trace_blocks(case.fn, case.params, *case.args)
    assert len(blocks) == BLOCKS[name]
    first = next(iter(blocks))
    groups = jc.trace_axes(case.fn, case.params, *case.args)
    masks = {n: np.arange(g.size) < g.size // 2 for n, g in groups.prunable.items()}
    plan = blocks.plan([first])
    verify(case.fn, case.params, plan, *case.args)
    both = plan | groups.plan(masks)
    verify(case.fn, case.params, both, *case.args)
    small = slice_params(case.params, both)
    assert both.parameters == sum(x.size for x in jax.tree.leaves(small))
    assert groups.parameters(both) == both.parameters
    shrunk = jc.shrink(case.fn, both)
    assert groups.macs(both) == jc.count(shrunk, small, *case.args).macs
    assert Plan.from_json(both.to_json()) == both


def test_without_its_block_the_network_is_the_other_path():
    (name,) = trace_blocks(fn, PARAMS, X)
    plan = trace_blocks(fn, PARAMS, X).plan([name])
    assert plan.removed == {"up/kernel", "down/kernel"}
    small, shrunk = slice_params(PARAMS, plan), jc.shrink(fn, plan)
    wanted = X @ PARAMS["in"]["kernel"] @ PARAMS["out"]["kernel"]
    np.testing.assert_allclose(shrunk(small, X), wanted, rtol=1e-5, atol=1e-5)
    compiled = str(jax.jit(shrunk).lower(small, X).compile().as_text())
    assert compiled.count(" dot(") == 2  # of four

    def other_path(params, x):
        return x @ params["in"]["kernel"] @ params["out"]["kernel"]

    macs = jc.count(other_path, PARAMS, X).macs
    assert jc.count(shrunk, small, X).macs == GROUPS.macs(plan) == macs


class Normed(nn.Module):
    """A block whose shortcut is a layer as well, then one with a plain shortcut."""

    @nn.compact
    def __call__(self, x, train=False):
        for width in (6, 6):
            y = nn.BatchNorm(not train)(nn.Dense(width, use_bias=False)(x))
            x = nn.Dense(width)(x) + y if width != x.shape[-1] else x + y
        return nn.Dense(3)(x)


def normed(train):
    mutable = ["batch_stats"] if train else False
    return lambda v, x: Normed().apply(v, x, train, mutable=mutable)


@pytest.mark.slow
def test_statistics_of_removed_blocks_are_empty_in_training_too():
    variables = Normed().init(jax.random.key(0), X)
    blocks = trace_blocks(normed(False), variables, X)
    # Either operand of the first sum can go; the second sum has a plain shortcut.
    weights = [block.leaves[-1] for block in blocks.values()]
    assert weights == [f"params/Dense_{i}/kernel" for i in (1, 0, 2)]
    assert list(blocks) == ["params/Dense_1", "params", "params#2"]
    assert [block.other for block in blocks.values()] == [
        "params",
        "params/Dense_1",
        "",
    ]
    with pytest.raises(
        PlanError, match="only one of 'params' and 'params/Dense_1' can"
    ):
        blocks.plan(["params", "params/Dense_1"])
    groups = jc.trace_axes(normed(False), variables, X)
    (wide,) = (n for n, g in groups.prunable.items() if g.size == 6)
    narrow = groups.plan({wide: np.arange(6) < 4})
    for name in blocks:
        for plan in (blocks.plan([name]), blocks.plan([name]) | narrow):
            verify(normed(True), variables, plan, X)
            small = slice_params(variables, plan)
            new = jax.eval_shape(jc.shrink(normed(True), plan), small, X)[1]
            shapes = jax.tree.map(jnp.shape, small["batch_stats"])
            assert jax.tree.map(jnp.shape, new["batch_stats"]) == shapes


def test_a_layer_that_a_relu_follows_is_no_block():
    def plain(params, x):
        return jnp.maximum(x @ params["in"]["kernel"], 0) @ params["out"]["kernel"]

    assert not trace_blocks(plain, PARAMS, X)


def test_shared_weights_stay():
    def shared(params, x):
        h = x @ params["in"]["kernel"]
        h = h + jnp.tanh(h @ params["up"]["kernel"]) @ params["down"]["kernel"]
        return h @ params["up"]["kernel"] @ params["down"]["kernel"][:, :3]

    assert not trace_blocks(shared, PARAMS, X)


def test_layers_of_a_stack_are_a_group():
    def stacked(params, x):
        def layer(x, w):
            return x + jnp.tanh(x @ w), None

        return (
            jax.lax.scan(layer, x @ params["in"], params["layers"])[0] @ params["out"]
        )

    normal = np.random.default_rng(0).normal
    shapes = {"in": (4, 6), "layers": (5, 6, 6), "out": (6, 2)}
    params = {n: jnp.asarray(normal(size=s), jnp.float32) for n, s in shapes.items()}
    groups = jc.trace_axes(stacked, params, X)
    keep = np.array([True, False, True, True, False])
    plan = groups.plan({"layers[0]": keep})
    verify(stacked, params, plan, X)
    alone = {**params, "layers": params["layers"][keep]}
    small = jc.shrink(stacked, plan)(slice_params(params, plan), X)
    np.testing.assert_allclose(small, stacked(alone, X), rtol=1e-5)
    assert groups.macs({"layers[0]": keep}) == jc.count(stacked, alone, X).macs

    def not_residual(params, x):
        def layer(x, w):
            return jnp.tanh(x @ w), None

        return (
            jax.lax.scan(layer, x @ params["in"], params["layers"])[0] @ params["out"]
        )

    frozen = jc.trace_axes(not_residual, params, X)["layers[0]"].frozen
    assert "the steps of a loop" in frozen[0]


def test_scores_say_what_the_output_loses():
    (name,) = blocks = trace_blocks(fn, PARAMS, X)
    scores = block_scores(fn, PARAMS, blocks, X)
    out = fn(PARAMS, X)
    without = fn(mask_params(PARAMS, blocks.plan([name])), X)
    change = float(jnp.square(out - without).sum() / jnp.square(out).sum())
    np.testing.assert_allclose(scores[name], change, rtol=1e-5)


def test_what_cannot_be_removed_is_refused():
    blocks = trace_blocks(fn, PARAMS, X)
    with pytest.raises(PlanError, match="no block 'Block_7'; closest: '"):
        blocks.plan(["Block_7"])
    plan = Plan({}, GROUPS.shapes, ["in/kernel"])
    with pytest.raises(PlanError, match="cannot do without 'in/kernel'"):
        jc.shrink(fn, plan)(slice_params(PARAMS, plan), X)
    with pytest.raises(PlanError, match="removes 'other', which is unknown"):
        Plan({}, GROUPS.shapes, ["other"])
