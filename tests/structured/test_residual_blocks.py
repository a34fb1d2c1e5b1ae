# SPDX-License-Identifier: Apache-2.0
"""Depth: residual blocks that are removed whole."""

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

BLOCKS = {"resnet": 3, "resnet, padded shortcut": 3, "mobilenet": 1, "vit": 2}


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
