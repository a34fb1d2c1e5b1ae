# SPDX-License-Identifier: Apache-2.0
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.structured import rankings, scores
from research.structured_pruning.__main__ import cells, main
from research.structured_pruning._config import config_of
from research.structured_pruning._network import as_wide, resnet
from research.structured_pruning._rows import (
    CURVE,
    DENSE,
    DEPTH,
    MASKED,
    METHODS,
    ON,
    SCRATCH,
    WIDTH,
    WIDTHS_OF,
    as_fast,
    taylor,
    without_blocks,
)

QUICK = config_of("digits", seeds=None, quick=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(["--quick", "--out", str(out)]) == 0
    records = json.loads((out / "results.json").read_text())["records"]
    return out, [r for r in records if r["one"] is None], records


@pytest.mark.slow
def test_every_row_is_measured_timed_and_drawn(finished):
    out, measured, records = finished
    wanted = [(DENSE, 1.0), *cells(QUICK)]
    assert [(r["method"], r["factor"]) for r in measured] == wanted
    timed = [r for r in records if r["accuracy"] is None]
    assert [(r["method"], r["factor"]) for r in timed] == wanted
    assert timed[0]["one"] == timed[0]["many"] == 1
    assert (out / "results.png").stat().st_size > 10_000


@pytest.mark.slow
def test_rows_have_the_size_that_was_asked_for(finished):
    rows = {r["method"]: r for r in finished[1] if r["factor"] in (1.0, QUICK.factor)}
    dense = rows[DENSE]
    for name in (*METHODS, DEPTH, SCRATCH):
        assert rows[name]["macs"] <= dense["macs"] / QUICK.factor
        assert rows[name]["file_bytes"] < dense["file_bytes"]
    for field in ("macs", "parameters"):
        assert rows[SCRATCH][field] == rows[WIDTHS_OF][field]
        assert rows[ON][field] == dense[field]
    masked = rows[MASKED]
    # Zeros are multiplied like everything else; biases and norms are not pruned.
    assert masked["macs"] == dense["macs"]
    assert dense["parameters"] / QUICK.factor < masked["parameters"]
    assert masked["parameters"] < 0.6 * dense["parameters"]


@pytest.mark.slow
def test_networks_of_the_curve_shrink_with_their_factor(finished):
    for name in CURVE:
        sizes = [r["macs"] for r in finished[1] if r["method"] == name]
        factors = [r["factor"] for r in finished[1] if r["method"] == name]
        assert factors == list(QUICK.curve) and sizes == sorted(sizes, reverse=True)


def small(stages=(4, 6)):
    model = resnet(3, stages, 2, 1)
    x = normal(8, 6, 6, 1)
    return lambda v, x: model.apply(v, x), model, x


def test_a_network_can_be_built_as_wide_as_a_plan():
    fn, model, x = small()
    variables = jax.eval_shape(model.init, jax.random.key(1), x)
    groups = jc.trace_axes(fn, variables, x)
    masks = {
        name: np.arange(group.size) < 1 + i % 3
        for i, (name, group) in enumerate(groups.prunable.items())
    }
    plan = groups.plan(masks)
    built = jax.eval_shape(as_wide(model, plan).init, jax.random.key(1), x)
    assert built == jc.structured.slice_params(variables, plan)


@pytest.mark.slow
def test_blocks_are_removed_until_the_rest_is_small_enough():
    fn, model, x = small()
    variables = model.init(jax.random.key(1), x)
    plan = without_blocks(fn, variables, x, 2.0)
    left = jc.count(jc.shrink(fn, plan), jc.structured.slice_params(variables, plan), x)
    assert 0 < left.macs <= jc.count(fn, variables, x).macs / 2
    # The block that changes nothing goes first.
    zero = jax.tree.map(jnp.zeros_like, variables["params"]["Block_1"])
    variables["params"]["Block_1"] = zero
    assert without_blocks(fn, variables, x, 1.01).removed == set(
        jc.structured.trace_blocks(fn, variables, x)["params/Block_1"].leaves
    )


def test_a_plan_as_fast_as_another_is_found_by_bisection():
    # Time falls with the square root of the MACs; the one to meet is that of 2.5x.
    asked = []

    def plan_at(factor: float) -> Any:
        asked.append(factor)
        return factor

    found: Any = as_fast(plan_at, lambda plan: (2.5 / plan) ** 0.5)  # pyright: ignore
    assert abs((2.5 / found) ** 0.5 - 1) < 0.02 and len(asked) <= 8
    # What cannot be met comes as close as it can.
    slow: Any = as_fast(plan_at, lambda plan: 3.0 - plan / 6)  # pyright: ignore
    assert slow == max(asked[-8:])
    config = config_of("fashion_mnist", seeds=None, quick=False)
    assert len(config.curve) >= 5 and WIDTH in [name for name, _ in cells(config)]


def test_taylor_scores_are_averaged_over_batches():
    fn, model, x = small((4,))
    variables = model.init(jax.random.key(1), x)
    groups = jc.trace_axes(fn, variables, x)
    grads = jax.tree.map(lambda leaf: normal(32, *leaf.shape, seed=2), variables)
    halves = [jax.tree.map(lambda g, h=h: g[h].mean(0), grads) for h in BATCHES]
    each = [scores.taylor(groups, variables, grads=half) for half in halves]
    found = taylor(groups, variables, example_grads=grads)
    for name in groups.prunable:
        wanted = (each[0][name] + each[1][name]) / 2
        np.testing.assert_allclose(found[name], wanted, rtol=1e-4)
    assert METHODS["channels: Taylor, global"].ranking is rankings.global_


BATCHES = (slice(16), slice(16, 32))
