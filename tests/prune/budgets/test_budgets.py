# SPDX-License-Identifier: Apache-2.0
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import put

import jaxcompress as jc
from jaxcompress import prune
from jaxcompress.prune.budgets import (
    below,
    erk,
    global_,
    owl,
    per_path,
    saving,
    uniform,
)
from jaxcompress.prune.budgets._sparsity import bisect

SHAPES = {"a": (300, 100), "b": (100, 10), "c": (3, 3, 4, 8)}


# Heavier tails from leaf to leaf: few, some and many outliers.
SCORES = {
    path: jnp.asarray(
        np.abs(np.random.default_rng(i).normal(size=shape)) ** (1 + 1.5 * i),
        jnp.float32,
    )
    for i, (path, shape) in enumerate(SHAPES.items())
}
SIZES = np.array([s.size for s in SCORES.values()])
FRACTIONS = np.sort(
    np.append(np.random.default_rng(7).random(20), [0.0, 0.5, 0.9, 0.97, 0.999])
).astype(np.float32)


@functools.cache
def counts(budget):
    """Counts at all fractions by one program: (fractions, leaves)."""

    def one(sparsity):
        spent = budget(SCORES, sparsity)
        assert list(spent) == list(SCORES)
        assert all(n.dtype == jnp.uint32 and not n.shape for n in spent.values())
        return jnp.stack([*spent.values()])

    return np.asarray(jax.jit(jax.vmap(one))(FRACTIONS)).astype(np.int64)


OWL = owl()


@pytest.mark.parametrize("budget", [uniform, erk, global_, OWL])
def test_every_budget_spends_what_was_asked(budget):
    spent = counts(budget)
    assert (spent >= 0).all() and (spent <= SIZES).all()
    assert (np.diff(spent, axis=0) >= 0).all()  # more everywhere as the sparsity rises
    # Each leaf rounds to a whole weight; a density is exact to float32.
    off = np.abs(spent.sum(1) - FRACTIONS * SIZES.sum())
    assert off.max() <= 2 + 1e-5 * SIZES.sum()
    assert not spent[0].any()  # at 0


@pytest.mark.parametrize("budget", [uniform, erk, global_, OWL])
def test_eager_equals_traced_and_all_means_all(budget):
    at = list(FRACTIONS).index(np.float32(0.9))
    eager = budget(SCORES, jnp.float32(0.9))
    assert [int(n) for n in eager.values()] == counts(budget)[at].tolist()
    everything = budget(SCORES, jnp.float32(1.0))
    assert [int(n) for n in everything.values()] == SIZES.tolist()


def test_uniform_takes_the_same_share():
    wanted = np.minimum(FRACTIONS[:, None] * SIZES, SIZES - 1)  # one is left
    assert np.abs((counts(uniform) - wanted) / SIZES).max() <= (
        0.5 / SIZES.min() + 1e-6
    )


def test_erk_densities_are_proportional_until_a_leaf_is_dense():
    raw = np.array([sum(s.shape) / s.size for s in SCORES.values()])
    for row in counts(erk)[1:-1]:
        density = 1 - row / SIZES
        assert (density <= 1).all()
        is_open = density < 0.999
        factor = density[is_open] / raw[is_open]
        slack = 1 / SIZES[is_open] / raw[is_open]  # one weight
        assert np.ptp(factor) <= slack.sum() + 1e-4
        # What is dense would be above 1 at this factor.
        assert (factor.mean() * raw[~is_open] > 0.99).all()


def test_global_equals_one_sort():
    flat = np.concatenate([np.asarray(s).ravel() for s in SCORES.values()])
    owner = np.repeat(np.arange(3), SIZES)[np.argsort(flat, kind="stable")]
    for row, fraction in zip(counts(global_), FRACTIONS, strict=True):
        number = int(np.round(fraction * np.float32(flat.size)))
        below = np.bincount(owner[:number], minlength=3)
        assert row.tolist() == np.minimum(below, SIZES - 1).tolist()


def test_global_mixes_dtypes():
    mixed = {"a": SCORES["a"].astype(jnp.bfloat16), "b": SCORES["b"]}
    total = sum(int(n) for n in global_(mixed, jnp.float32(0.5)).values())
    assert total == (SIZES[0] + SIZES[1]) // 2


def test_owl_keeps_more_where_there_are_outliers_within_its_range():
    shares = [
        float(np.mean(s > 5 * s.mean())) for s in map(np.asarray, SCORES.values())
    ]
    assert shares[0] < shares[1] < shares[2]
    offset = 0.16 * (np.array(shares) - shares[0]) / (shares[2] - shares[0])
    for row in counts(OWL):
        density = 1 - row / SIZES
        assert np.ptp(density) <= 0.16 + 1 / SIZES.min()
        is_open = (density > 0.002) & (density < 0.998)
        apart = (density - offset)[is_open]
        assert np.ptp(apart) <= 2 / SIZES.min() if len(apart) else True


def test_owl_of_leaves_that_are_alike_is_uniform():
    same = {"a": SCORES["a"], "b": 2 * SCORES["a"]}
    spent = owl(outliers=3, spread=0.3)(same, jnp.float32(0.7))
    assert [int(n) for n in spent.values()] == [21000, 21000]


def test_per_path_takes_the_first_match_and_the_rest_shares():
    budget = per_path({"c*": 0.25, "[ac]": lambda s: s / 2}, rest=erk)
    spent = budget(SCORES, jnp.float32(0.8))
    alone = erk({"b": SCORES["b"]}, jnp.float32(0.8))
    assert {path: int(n) for path, n in spent.items()} == {
        "a": 12000,
        "b": int(alone["b"]),
        "c": 72,
    }
    assert list(spent) == list(SCORES)
    assert int(alone["b"]) == 800
    all_said = per_path({"*": 1.0})(SCORES, jnp.float32(0.0))
    assert [int(n) for n in all_said.values()] == SIZES.tolist()


def test_per_path_follows_a_schedule_inside_of_a_pruner():
    params = {path: s.reshape(-1, 8) for path, s in SCORES.items()}
    budget = per_path({"b": 0.0, "c": lambda s: s / 2})
    pruner = jc.magnitude_pruning(
        jc.prune.schedules.cubic(0.8, end=2), budget=budget, where="*"
    )
    update = jax.jit(pruner.update)
    params, state = params, pruner.init(params)
    for sparsity in (0.7, 0.8, 0.8):
        params, state = update(params, state)
        pruned = [int((~state.masks[path]).sum()) for path in "abc"]
        assert pruned == [round(sparsity * 30000), 0, round(sparsity / 2 * 288)]


@pytest.mark.parametrize("glob", ["d", "a/*", "A"])
def test_a_glob_that_decides_nothing_is_named(glob):
    for sparsities in ({glob: 0.5}, {"*": 0.5, "b": 0.1}):
        wrong = next(iter(sparsities)) if len(sparsities) == 1 else "b"
        wrong = wrong.replace("*", ".")
        with pytest.raises(
            ValueError, match=f"must be the first to match some leaf, got '{wrong}'"
        ):
            per_path(sparsities)(SCORES, jnp.float32(0.5))


@pytest.mark.parametrize("value", [90, -0.5, 1.5])
def test_sparsities_of_paths_are_checked(value):
    with pytest.raises(ValueError, match=r"'a': sparsity must be in \[0, 1\], got"):
        per_path({"a": value})


def test_below_counts_what_is_lower_and_keeps_a_tie():
    scores = {"a": jnp.asarray([[-1.0, 0.0], [0.5, jnp.nan]]), "b": jnp.ones((2, 2))}
    for sparsity in (0.0, 0.9):  # is not looked at
        spent = below(0.5)(scores, jnp.float32(sparsity))
        assert {p: (int(n), n.dtype) for p, n in spent.items()} == {
            "a": (2, jnp.uint32),
            "b": (0, jnp.uint32),
        }
    pruner = jc.prune.prune(0.0, budget=below(0.5))
    masks = jax.jit(pruner.init)({"a": jnp.asarray([[0.1, -0.6], [0.5, 0]])}).masks
    assert masks["a"].tolist() == [[False, True], [True, False]]


def test_bisection_finds_the_least():
    def find(edge, high):
        return bisect(lambda x: x >= edge, high)

    edges = jnp.asarray([0.0, 1e-6, 0.3, 1.0, 2.0, 9.0])
    found = jax.jit(jax.vmap(find, in_axes=(0, None)))(edges, jnp.float32(2))
    np.testing.assert_allclose(found, jnp.minimum(edges, 2), rtol=1e-6, atol=1e-9)
    assert (found >= jnp.minimum(edges, 2)).all()


def test_leaves_of_any_rank_spend_what_was_asked():
    scores = {"a": SCORES["b"], "scalar": jnp.ones(()), "vector": jnp.ones(12)}
    for budget in (uniform, erk, global_, owl()):
        spent = [int(n) for n in budget(scores, jnp.float32(0.5)).values()]
        assert abs(sum(spent) - 506) <= 2


def test_leaves_without_weights_spend_nothing():
    scores = {"a": SCORES["b"], "empty": jnp.ones((0, 3))}
    for budget in (uniform, erk, global_, owl()):
        spent = budget(scores, jnp.float32(0.5))
        assert [int(n) for n in spent.values()] == [500, 0]


def test_no_budget_empties_a_leaf_below_a_sparsity_of_one():
    rng = np.random.default_rng(1)
    scores = {
        "small": put(rng.random((8, 5))),
        "faint": put(rng.random((30, 40)) * 1e-6),
        "large": put(rng.random((90, 80))),
        "single": jnp.ones((1, 1)),
    }
    sizes = np.array([s.size for s in scores.values()])
    price = prune.budgets.coded_bytes()
    budgets = (uniform, erk, global_, owl(), per_path({"small": lambda s: s}))
    for budget in (*budgets, saving(price), saving(price, uniform)):
        spend = jax.jit(lambda s, budget=budget: [*budget(scores, s).values()])
        for sparsity in (0.99, 0.99999, 1 - 2.0**-24):
            assert (np.asarray(spend(jnp.float32(sparsity))) < sizes).all()
        assert (np.asarray(spend(jnp.float32(1))) == sizes).all()
    assert [int(n) for n in below(9.0)(scores, jnp.float32(0)).values()] == [
        *(sizes - 1)
    ]


@pytest.mark.parametrize("budget", [uniform, erk, global_])
def test_the_weight_that_a_leaf_keeps_is_its_largest(budget):
    rng = np.random.default_rng(2)
    params = {
        "small": put(rng.normal(size=(8, 5)) * 1e-3),
        "large": put(rng.normal(size=(40, 25))),
    }
    pruner = jc.magnitude_pruning(0.999, budget=budget, where="*")
    view = pruner.apply(params, jax.jit(pruner.init)(params))
    for path, leaf in params.items():
        largest = np.abs(leaf) == np.abs(leaf).max()
        assert np.asarray(view[path] != 0)[largest].all()
    assert int((view["small"] != 0).sum()) == 1 or budget is erk
