# SPDX-License-Identifier: Apache-2.0
"""Which channels are chosen: scores, rankings, budgets."""

import itertools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_paths import GROUPS, PARAMS, X, fn

import jaxcompress as jc
from jaxcompress.structured import (
    KeptWarning,
    Plan,
    PlanError,
    budgets,
    rankings,
    scores,
    select,
    structured_pruning,
    trace_blocks,
)

STREAM, HIDDEN = "down/kernel[1]", "up/kernel[1]"
RISING = {STREAM: np.arange(1.0, 9), HIDDEN: np.arange(1.0, 13)}


def grads():
    return jax.grad(lambda p: jnp.square(fn(p, X)).sum())(PARAMS)


def kept(plan, path, axis):
    return np.flatnonzero(plan[path, axis]).tolist()


def test_groups_have_every_leaf_of_their_channels():
    leaves = {name: set(group.leaves) for name, group in GROUPS.prunable.items()}
    assert leaves == {
        STREAM: {"in/kernel", "up/kernel", "down/kernel", "out/kernel"},
        HIDDEN: {"up/kernel", "down/kernel"},
    }


@pytest.mark.parametrize(
    ("budget", "cost"),
    [
        (budgets.channels(0.5), lambda p: p.widths["up/kernel"]),
        (budgets.parameters(0.5), lambda p: p.parameters),
        (budgets.macs(0.5), lambda p: p.parameters),  # of dense layers the same
        (budgets.bytes_(4 * 200), lambda p: p.parameters),
    ],
)
def test_a_budget_is_met_and_one_channel_more_would_break_it(budget, cost):
    plan = select(GROUPS, RISING, budget, ranking=rankings.global_)
    masks = {STREAM: plan["in/kernel", 1], HIDDEN: plan["up/kernel", 1]}
    spent, limit = budget(GROUPS, masks)
    assert spent <= limit
    # The channel that went last comes back.
    removed = [(RISING[n][i], n, i) for n, m in masks.items() for i in np.where(~m)[0]]
    _, name, i = max(removed)
    masks[name] = masks[name].copy()
    masks[name][i] = True
    assert budget(GROUPS, masks)[0] > limit


def test_costs_are_those_of_the_sliced_network():
    plan = select(GROUPS, scores.l2(GROUPS, PARAMS), budgets.macs(0.4))
    small = jc.structured.slice_params(PARAMS, plan)
    masks = {STREAM: plan["in/kernel", 1], HIDDEN: plan["up/kernel", 1]}
    assert GROUPS.macs(masks) == jc.count(jc.shrink(fn, plan), small, X).macs
    assert GROUPS.macs() == jc.count(fn, PARAMS, X).macs
    assert GROUPS.parameters(masks) == sum(x.size for x in jax.tree.leaves(small))


def test_a_latency_budget_measures_plans():
    tried = []

    def measure(plan):
        tried.append(plan.parameters)
        return plan.parameters * 1e-6

    plan = select(GROUPS, RISING, budgets.latency(measure, 150e-6))
    assert plan.parameters <= 150 and len(tried) <= 8


def test_the_lowest_scores_go_first():
    plan = select(GROUPS, RISING, budgets.channels(0.5), ranking=rankings.local)
    assert kept(plan, "in/kernel", 1) == [4, 5, 6, 7]
    assert kept(plan, "up/kernel", 1) == list(range(6, 12))
    assert kept(plan, "down/kernel", 0) == list(range(6, 12))


def test_rankings_compare_groups():
    # The stream scores ten times higher.
    values = {STREAM: 10 * RISING[STREAM], HIDDEN: RISING[HIDDEN]}
    share = budgets.channels(0.6)
    alone = select(GROUPS, values, share, ranking=rankings.global_)
    assert "in/kernel" not in alone.widths or alone.widths["in/kernel"] == (4, 8)
    both = select(GROUPS, values, share, ranking=rankings.relative)
    assert both.widths["in/kernel"][1] < 8 and both.widths["up/kernel"][1] < 12
    same = {n: jnp.asarray(v) for n, v in values.items()}
    # Of different kinds, isomorphic ranks each by itself, as local does.
    for name, ranks in rankings.isomorphic(GROUPS, same).items():
        np.testing.assert_allclose(ranks, rankings.local(GROUPS, same)[name])


def test_widths_are_rounded_and_kept():
    plan = select(GROUPS, RISING, budgets.channels(0.45), round_to=4)
    assert all(n % 4 == 0 for n in plan.widths["up/kernel"])
    least = select(GROUPS, RISING, budgets.channels(0.5), keep=5)
    assert min(least.widths["up/kernel"]) >= 5


def test_protected_leaves_keep_their_channels():
    plan = select(GROUPS, RISING, budgets.channels(0.7), protect=["out/*"])
    assert set(plan.widths) == {"up/kernel", "down/kernel"}
    for named in (STREAM, "down/kernel[[]*"):
        named = select(GROUPS, RISING, budgets.channels(0.7), protect=named)
        assert named == plan
    with pytest.raises(
        PlanError, match=r"'ouf/\*' matches no leaf and no group; closest: 'out"
    ):
        select(GROUPS, RISING, budgets.channels(0.7), protect="ouf/*")


def test_what_cannot_be_met_or_ranked_is_refused():
    with pytest.raises(PlanError, match="cannot be met: with everything pruned"):
        select(GROUPS, RISING, budgets.parameters(0.01))
    with pytest.raises(PlanError, match="'nothing', which does not exist"):
        select(GROUPS, {"nothing": np.ones(3)}, budgets.macs(0.5))
    with pytest.raises(PlanError, match=r"float \[8\], got \[3\]"):
        select(GROUPS, {STREAM: np.ones(3)}, budgets.macs(0.5))
    with pytest.raises(ValueError, match=f"scores of '{STREAM.split('[')[0]}.*NaN"):
        select(GROUPS, {**RISING, STREAM: np.full(8, np.nan)}, budgets.macs(0.5))
    with pytest.raises(
        ValueError, match=r"macs takes the fraction to keep, in \(0, 1\]"
    ):
        budgets.macs(2)
    with pytest.raises(TypeError, match="round_to must be a whole number"):
        select(GROUPS, RISING, budgets.macs(0.5), round_to=1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        select(GROUPS, RISING, budgets.macs(0.5), keep=0)
    with pytest.warns(KeptWarning, match="1 of 2 groups have no scores"):
        select(GROUPS, {HIDDEN: RISING[HIDDEN]}, budgets.channels(0.7))


def test_swapped_and_uncalled_arguments_are_named():
    budget: Any = budgets.macs(0.5)
    for args, text in [
        ((RISING, GROUPS, budget), "takes the result of trace_axes, got a dict"),
        ((GROUPS, scores.l2, budget), r"such as scores.l2\(groups, params\), got l2"),
        ((GROUPS, RISING, budgets.macs), r"such as budgets.macs\(0.5\), got macs"),
        ((GROUPS, RISING, 0.5), r"such as budgets.macs\(0.5\), got 0.5"),
    ]:
        with pytest.raises(TypeError, match=text):
            select(*args)
    with pytest.raises(PlanError, match="not those that trace_axes got"):
        scores.l2(GROUPS, {"in": PARAMS["in"]})


ORDERS = [
    ("mask_params", "params, plan"),
    ("slice_params", "params, plan"),
    ("shrink", "fn, plan"),
    ("verify", "fn, params, plan"),
    ("plan_of", "groups, state"),
    ("draw", "groups, path"),
    ("structured_pruning", "groups, sparsity"),
    ("block_scores", "fn, params, blocks"),
    ("scores.l2", "groups, params"),
    ("scores.activation", "groups, params"),
    ("penalties.group_lasso", "groups, params"),
    ("penalties.growing", "groups, params, masks"),
    ("budgets.latency", "measure, limit"),
]


@pytest.mark.parametrize(("name", "order"), ORDERS)
def test_arguments_in_another_order_are_told_the_order(name, order):
    values = {
        "fn": fn,
        "groups": GROUPS,
        "params": PARAMS,
        "plan": Plan({}, GROUPS.shapes),
        "state": structured_pruning(GROUPS, 0.5).init(PARAMS),
        "blocks": trace_blocks(fn, PARAMS, X),
        "path": "groups.svg",
        "sparsity": 0.5,
        "masks": {},
        "measure": len,
        "limit": 1.0,
    }
    call = operator.attrgetter(name)(jc.structured)
    given = [values[argument] for argument in order.split(", ")]
    for wrong in itertools.permutations(given):
        if wrong != tuple(given) and not (
            name == "penalties.growing" and wrong[0] is GROUPS
        ):
            text = rf"{name.split('.')[-1]}\({order}.*\) takes .*, got "
            with pytest.raises(TypeError, match=text):
                call(*wrong)
    with pytest.raises(
        TypeError, match=r"plan\(masks\) takes .*, got a StructuredState"
    ):
        GROUPS.plan(values["state"])


def test_costs_of_a_plan_are_those_of_its_masks():
    plan = select(GROUPS, RISING, budgets.macs(0.4))
    masks = {STREAM: plan["in/kernel", 1], HIDDEN: plan["up/kernel", 1]}
    assert GROUPS.macs(plan) == GROUPS.macs(masks) <= 0.4 * GROUPS.macs()
    assert GROUPS.parameters(plan) == plan.parameters


def test_leaves_that_nothing_reads_are_frozen_and_closed_over_weights_are_named():
    params = {**PARAMS, "average": PARAMS["in"]}
    groups = jc.trace_axes(fn_of_known, params, X)
    assert groups["average/kernel[1]"].frozen == (
        "the function does not read this leaf",
    )
    plan = select(GROUPS, RISING, budgets.macs(0.5))
    with pytest.raises(
        PlanError, match="reads none of the leaves that the plan prunes"
    ):
        jc.structured.verify(lambda p, x: fn(PARAMS, x), PARAMS, plan, X)


def fn_of_known(params, x):
    return fn({name: params[name] for name in PARAMS}, x)


def test_scores_do_not_go_by_names():
    params = {"a": jnp.ones((4, 3)), "b": 2 * jnp.ones((3, 2))}
    groups = jc.trace_axes(lambda p, x: jnp.tanh(x @ p["a"]) @ p["b"], params, X)
    (found,) = scores.l1(groups, params).values()
    np.testing.assert_allclose(found, (4 * 1 + 2 * 2) / 6)


def by_hand(leaves, fn):
    """Values of all weights of each hidden channel, from the kernels' own layout."""
    return np.concatenate(
        [fn(leaves["up"]["kernel"]), fn(leaves["down"]["kernel"]).T], 0
    )


def test_scores_are_their_papers_formulas():
    plain = by_hand(PARAMS, np.asarray)
    np.testing.assert_allclose(
        scores.l1(GROUPS, PARAMS)[HIDDEN], np.abs(plain).mean(0), rtol=1e-5
    )
    np.testing.assert_allclose(
        scores.l2(GROUPS, PARAMS)[HIDDEN],
        np.sqrt(np.square(plain).mean(0)),
        rtol=1e-5,
    )
    changes = by_hand(jax.tree.map(lambda w, g: w * g, PARAMS, grads()), np.asarray)
    np.testing.assert_allclose(
        scores.taylor(GROUPS, PARAMS, grads=grads())[HIDDEN],
        np.square(changes.sum(0)),
        rtol=1e-4,
    )
    distances = np.linalg.norm(plain.T[:, None] - plain.T[None], axis=-1).sum(1)
    np.testing.assert_allclose(
        scores.geometric_median(GROUPS, PARAMS)[HIDDEN], distances, rtol=1e-4
    )


def test_fisher_of_one_example_is_taylor():
    one = jax.tree.map(lambda g: g[None], grads())
    np.testing.assert_allclose(
        scores.fisher(GROUPS, PARAMS, example_grads=one)[HIDDEN],
        scores.taylor(GROUPS, PARAMS, grads=grads())[HIDDEN],
        rtol=1e-5,
    )


def test_activation_scores_see_the_values_that_are_read():
    histograms = jc.observe(fn, PARAMS, [X], jc.program.statistics.magnitudes())
    with pytest.raises(PlanError, match="no number for each input channel"):
        scores.activation(GROUPS, PARAMS, stats=histograms)
    stats = jc.observe(fn, PARAMS, [X], jc.program.statistics.max_magnitude())
    hidden = jnp.maximum((X @ PARAMS["in"]["kernel"]) @ PARAMS["up"]["kernel"], 0).max(
        0
    )
    found = scores.activation(GROUPS, PARAMS, stats=stats)
    np.testing.assert_allclose(found[HIDDEN], hidden, rtol=1e-5)


def test_norm_scales_are_read_where_they_are():
    params = {**PARAMS, "norm": {"scale": jnp.arange(8.0)}}

    def scaled(p, x):
        p = dict(p)
        scale = p.pop("norm")["scale"]
        h = (x @ p["in"]["kernel"]) * scale[None]
        return h @ p["out"]["kernel"] + 0 * fn(p, x)

    groups = jc.trace_axes(scaled, params, X)
    (found,) = scores.norm_scale()(groups, params).values()
    np.testing.assert_array_equal(found, jnp.arange(8.0))


def test_random_scores_are_the_same_at_every_call():
    score = scores.random(jax.random.key(0))
    first, again = score(GROUPS, PARAMS), score(GROUPS, PARAMS)
    assert all((first[n] == again[n]).all() for n in first)
