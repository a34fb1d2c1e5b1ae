# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress.prune.budgets import coded_bytes, erk, global_, macs, saving, uniform

SHAPES = {"conv/kernel": (3, 3, 4, 8), "dense/kernel": (60, 40), "out/kernel": (40, 10)}
SCORES = {
    path: jnp.asarray(np.abs(np.random.default_rng(i).normal(size=shape)), jnp.float32)
    for i, (path, shape) in enumerate(SHAPES.items())
}
SIZES = {path: score.size for path, score in SCORES.items()}
PER_WEIGHT = {"conv/*": 49.0, "dense/kernel": 1.0, "*": 2.0}
SAVED = jnp.asarray([0.0, 0.1, 0.37, 0.5, 0.8, 0.95, 0.999, 1.0])
BISECTION_STEP = 2.0**-24


def price_of(price, counts):
    """In float64, from the definition."""
    kept = {p: SIZES[p] - int(counts[p]) for p in SIZES}
    if price == "macs":
        each = {"conv/kernel": 49, "dense/kernel": 1, "out/kernel": 2}
        return float(sum(each[p] * n for p, n in kept.items()))
    total = 0.0
    for path, number in kept.items():
        d = number / SIZES[path]
        entropy = -sum(x * np.log2(x) for x in (d, 1 - d) if x > 0)
        total += (8 * number + SIZES[path] * entropy) / 8
    return total


PRICES = {"macs": macs(PER_WEIGHT), "bytes": coded_bytes(bits=8)}


@pytest.mark.parametrize("price", PRICES)
@pytest.mark.parametrize("inner", [uniform, erk, global_])
def test_the_price_is_met_and_a_step_less_would_not_meet_it(price, inner):
    seen = []

    def spied(scores, sparsity):
        seen.append(sparsity)
        return inner(scores, sparsity)

    def one(saved):
        counts = saving(PRICES[price], spied)(SCORES, saved)
        x = seen[-1]  # the call after the bisection
        return x, counts, inner(SCORES, x - BISECTION_STEP)

    found, counts, less = jax.jit(jax.vmap(one))(SAVED)
    dense = price_of(price, dict.fromkeys(SIZES, 0))
    one_each = price_of(price, {path: n - 1 for path, n in SIZES.items()})
    for i, saved in enumerate(SAVED):
        aim = (1 - float(saved)) * dense
        if saved < 1:  # no budget empties a leaf
            aim = max(aim, one_each)
        assert all(n.dtype == jnp.uint32 for n in counts.values())
        assert price_of(price, {p: n[i] for p, n in counts.items()}) <= (
            aim + 2e-6 * dense
        )
        if saved and found[i] > 2 * BISECTION_STEP:
            one_less = price_of(price, {p: n[i] for p, n in less.items()})
            assert one_less > aim - 2e-6 * dense


@pytest.mark.parametrize("bits", [32.0, 8.0, 4.0, 1.0])
def test_nothing_to_save_prunes_nothing(bits):
    for price in (coded_bytes(bits), macs(PER_WEIGHT)):
        counts = saving(price, uniform)(SCORES, jnp.float32(0.0))
        assert [int(n) for n in counts.values()] == [0, 0, 0]


def test_prices_equal_their_definitions():
    for i in range(5):
        rng = np.random.default_rng(i)
        counts = {p: rng.integers(0, n + 1) for p, n in SIZES.items()}
        kept = {p: jnp.float32(SIZES[p] - n) for p, n in counts.items()}
        for name, price in PRICES.items():
            found = price(kept, SIZES)
            np.testing.assert_allclose(found, price_of(name, counts), rtol=1e-5)


def test_macs_are_read_from_a_function_and_pruners_follow_a_schedule():
    params = {
        "conv": {"kernel": SCORES["conv/kernel"], "bias": jnp.zeros(8)},
        "out": {"kernel": jnp.ones((8, 5)) * SCORES["out/kernel"][:8, :5]},
    }

    def fn(params, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(
            x, params["conv"]["kernel"], (1, 1), "SAME", dimension_numbers=numbers
        )
        return h.mean((1, 2)) @ params["out"]["kernel"]

    x = jnp.ones((1, 6, 6, 4))
    sizes = {"conv/kernel": 288, "out/kernel": 40}
    each = {
        site.leaf: site.macs / sizes[site.leaf]
        for site in jc.sites(fn, params, x)
        if site.leaf
    }
    assert each["out/kernel"] == 1 and each["conv/kernel"] > 20
    budget = saving(macs(each))
    pruner = jc.magnitude_pruning(jc.prune.schedules.cubic(0.75, end=3), budget=budget)
    update = jax.jit(pruner.update)
    state = pruner.init(params)
    assert all(m.all() for m in jax.tree.leaves(state.masks))
    for _ in range(3):
        params, state = update(params, state)
    left = sum(
        each[f"{name}/kernel"] * float(state.masks[name]["kernel"].sum())
        for name in ("conv", "out")
    )
    dense = sum(each[path] * n for path, n in sizes.items())
    assert 0.25 * dense - each["conv/kernel"] < left <= 0.25 * dense * (1 + 1e-5)


def test_a_leaf_without_a_price_is_named():
    budget = saving(macs({"conv/*": 3.0, "dense/kernal": 1.0}))
    with pytest.raises(
        ValueError, match="entry for 'dense/kernel'; closest.*'dense/kernal'"
    ):
        budget(SCORES, jnp.float32(0.5))
    with pytest.raises(ValueError, match="closest entries: none"):
        saving(macs({}))(SCORES, jnp.float32(0.5))


def test_an_exact_path_is_found_before_a_glob():
    price = macs({"*": 5.0, "dense/kernel": 1.0, "[x]": 9.0})
    assert price({"dense/kernel": jnp.float32(3)}, SIZES) == 3
    assert macs({"[x]": 9.0})({"[x]": jnp.float32(1)}, {"[x]": 1}) == 9
