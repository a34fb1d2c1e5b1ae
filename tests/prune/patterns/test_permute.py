# SPDX-License-Identifier: Apache-2.0
import functools
import itertools

import flax.linen as nn
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from examples import examples

import jaxcompress as jc
from jaxcompress.prune.patterns import NOfM, permute, permuted_for, search_permutation

KEY = jax.random.key(0)


def kept(scores, n, m):
    """Sum of the n largest of every m along the first axis, in float64."""
    wide = np.asarray(scores, np.float64).reshape(len(scores) // m, m, -1)
    return np.sort(wide, axis=1)[:, m - n :].sum()


def optimum(scores, n, m):
    """The best over all orders, for two groups."""
    channels = range(len(scores))
    return max(
        kept(scores[[*first, *(c for c in channels if c not in first)]], n, m)
        for first in itertools.combinations(channels, m)
    )


def improving_swaps(scores, n, m):
    """How many exchanges of two channels would raise what is kept."""
    now, found = kept(scores, n, m), 0
    for i, j in itertools.combinations(range(len(scores)), 2):
        order = np.arange(len(scores))
        order[[i, j]] = j, i
        found += kept(scores[order], n, m) > now
    return found


@examples(10)
@hypothesis.given(seed=st.integers(0, 9999))
def test_two_groups_end_between_the_identity_and_the_optimum(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 50, (8, 3)).astype(np.float32)
    order = np.asarray(search_permutation(jnp.asarray(scores), 2, 4, key=KEY))
    assert order.dtype == np.int32 and sorted(order) == list(range(8))
    found = kept(scores[order], 2, 4)
    assert kept(scores, 2, 4) <= found <= optimum(scores, 2, 4)
    column = jnp.asarray(scores.copy())  # one index: any local optimum is the best
    column = column.at[:, 1:].set(0)
    order = np.asarray(search_permutation(column, 2, 4, key=KEY))
    assert kept(np.asarray(column)[order], 2, 4) == optimum(np.asarray(column), 2, 4)


@pytest.mark.parametrize(
    ("shape", "n", "m"), [((20, 6), 2, 4), ((12, 5), 1, 2), ((24, 2, 3), 5, 8)]
)
def test_every_round_helps_or_does_nothing_until_no_swap_does(shape, n, m):
    scores = np.random.default_rng(0).integers(0, 99, shape).astype(np.float32)

    def after(rounds):
        found = search_permutation(jnp.asarray(scores), n, m, key=KEY, rounds=rounds)
        return np.asarray(found)

    orders = [after(rounds) for rounds in (0, 1, 2, 3, 5, 9, 300)]
    np.testing.assert_array_equal(orders[0], np.arange(shape[0]))
    objectives = [kept(scores[order], n, m) for order in orders]
    assert objectives == sorted(objectives) and objectives[-1] > objectives[0]
    assert not improving_swaps(scores[orders[-1]], n, m)


def test_vmapped_searches_equal_solo_ones():
    scores = put(np.random.default_rng(1).random((2, 8, 3)))
    search = functools.partial(search_permutation, n=2, m=4, key=KEY)
    together = jax.vmap(search)(scores)
    np.testing.assert_array_equal(together, jnp.stack([search(s) for s in scores]))


@examples(8)
@hypothesis.given(seed=st.integers(0, 999), power=st.integers(-30, 30))
def test_real_scores_never_lose(seed, power):
    scores = np.random.default_rng(seed).lognormal(0, 2, (8, 3)) * 2.0**power
    scores = scores.astype(np.float32)
    order = np.asarray(search_permutation(jnp.asarray(scores), 2, 4, key=KEY))
    assert kept(scores[order], 2, 4) >= kept(scores, 2, 4)


def test_one_group_ties_and_infinities_stay():
    for scores in (jnp.ones((4, 3)), jnp.ones((8, 3)), jnp.full((8, 3), jnp.inf)):
        order = search_permutation(scores, 2, 4, key=KEY)
        assert order.tolist() == list(range(len(scores)))


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.LayerNorm()(nn.Dense(16)(x))
        x = nn.relu(nn.Dense(16)(nn.relu(x)))
        return nn.Dense(3)(x)


class ConvNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Conv(16, (3, 3))(x)
        x = nn.relu(nn.BatchNorm(use_running_average=True)(x))
        a, b = nn.Conv(6, (3, 3))(x), nn.Conv(5, (1, 1))(x)
        return jnp.concatenate([a, b], axis=-1).mean((1, 2))


class GatedBlock(nn.Module):
    @nn.compact
    def __call__(self, x):
        y = nn.LayerNorm()(x)
        y = nn.MultiHeadDotProductAttention(num_heads=2, name="attention")(y)
        x = x + y
        y = nn.LayerNorm()(x)
        up, gate = nn.Dense(24, name="up")(y), nn.Dense(24, name="gate")(y)
        return x + nn.Dense(8, name="down")(nn.silu(gate) * up)


NETWORKS = {
    "mlp": (
        MLP(),
        (5, 4),
        {
            "params/Dense_0/kernel": 1,
            "params/Dense_0/bias": 0,
            "params/LayerNorm_0/scale": 0,
            "params/LayerNorm_0/bias": 0,
            "params/Dense_1/kernel": 0,
        },
        None,
        ["Dense_1"],
    ),
    "conv": (
        ConvNet(),
        (2, 6, 6, 3),
        {
            "params/Conv_0/kernel": -1,
            "params/Conv_0/bias": -1,
            "params/BatchNorm_0/scale": 0,
            "params/BatchNorm_0/bias": 0,
            "batch_stats/BatchNorm_0/mean": 0,
            "batch_stats/BatchNorm_0/var": 0,
            "params/Conv_1/kernel": -2,
            "params/Conv_2/kernel": -2,
        },
        jc.Axes(contraction=-2),
        ["Conv_1", "Conv_2"],
    ),
    "gated block": (
        GatedBlock(),
        (2, 5, 8),
        {
            "params/up/kernel": 1,
            "params/up/bias": 0,
            "params/gate/kernel": 1,
            "params/gate/bias": 0,
            "params/down/kernel": 0,
        },
        None,
        ["down"],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_and_what_is_kept_rises(name):
    model, shape, axes, pattern_axes, consumers = NETWORKS[name]
    x = normal(*shape, seed=1)
    # No zeros and ones: biases, scales and statistics that differ between channels.
    rng = np.random.default_rng(2)
    variables = jax.tree_util.tree_map_with_path(
        lambda path, p: jnp.asarray(
            rng.normal(0, 0.3, p.shape) + ("var" in str(path)) * 2, p.dtype
        ),
        jax.eval_shape(model.init, KEY, x),
    )
    new, order = permuted_for(NOfM(2, 4, axes=pattern_axes), variables, axes, key=KEY)
    assert order.tolist() != list(range(len(order)))
    apply = jax.jit(model.apply)
    np.testing.assert_allclose(apply(new, x), apply(variables, x), rtol=1e-4, atol=1e-5)

    def kept_by(tree):
        kernels = [tree["params"][c]["kernel"] for c in consumers]
        first = [jnp.moveaxis(jnp.abs(k), -2, 0) for k in kernels]
        return sum(kept(f.reshape(len(f), -1), 2, 4) for f in first)

    assert kept_by(new) > 1.005 * kept_by(variables)
    untouched = set(variables["params"]) - {path.split("/")[1] for path in axes}
    for layer in untouched:
        before, after = variables["params"][layer], new["params"][layer]
        assert all(map(lambda a, b: a is b, *map(jax.tree.leaves, (before, after))))
    back = permute(new, jnp.argsort(order), axes)
    jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_scores_of_ones_own_decide():
    params = {"kernel": jnp.ones((8, 2))}
    scores = {"kernel": jnp.repeat(jnp.arange(8.0), 2).reshape(8, 2)}
    axes = {"kernel": 0}
    _, same = permuted_for(NOfM(2, 4), params, axes, key=KEY)
    _, other = permuted_for(NOfM(2, 4), params, axes, key=KEY, scores=scores)
    assert same.tolist() == list(range(8))
    assert kept(scores["kernel"][other], 2, 4) == 2 * (4 + 5 + 6 + 7)


def test_permute_takes_traced_orders_and_several_axes_of_a_leaf():
    square = {"kernel": jnp.arange(9.0).reshape(3, 3)}
    order = jnp.array([2, 0, 1])
    new = jax.jit(lambda o: permute(square, o, {"kernel": (0, 1)}))(order)
    expected = np.asarray(square["kernel"])[np.ix_(order, order)]
    np.testing.assert_array_equal(new["kernel"], expected)


@pytest.mark.parametrize(
    ("order", "axes", "message"),
    [
        (
            [1, 0],
            {"up/kernal": 1},
            "leaf has the path 'up/kernal'; closest: 'up/kernel'",
        ),
        ([1, 0], {"up/*": 1}, "full paths, not globs"),
        ([1, 0], {"up/kernel": 1}, "'up/kernel': axis 1 of .4, 8. has length 8, but 2"),
        ([1, 0], {"up/kernel": 2}, "there is no axis 2"),
        ([0, 0], {}, "must contain each of 0 to 1 exactly once, got .0 0."),
        ([0.0, 1.0], {}, r"an int array \[C\], got float32"),
    ],
)
def test_bad_couplings(order, axes, message):
    params = {"up": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}
    with pytest.raises(ValueError, match=message):
        permute(params, jnp.asarray(order), axes)


def test_bad_searches():
    params = {"up": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}}

    def search(axes):
        return permuted_for(NOfM(2, 4), params, axes, key=KEY)

    with pytest.raises(
        ValueError, match="contraction axis, got .'up/bias', 'up/kernel'."
    ):
        search({"up/kernel": 1, "up/bias": 0})
    with pytest.raises(ValueError, match="'up/kernel': axis 0 .* length 4, but 8 chan"):
        search({"up/kernel": 0, "up/bias": 0})
    with pytest.raises(ValueError, match="closest: 'up/kernel'"):
        search({"kernel": 0})
    with pytest.raises(
        ValueError, match="first axis of scores must be a multiple of m=4"
    ):
        search_permutation(jnp.ones((6, 2)), 2, 4, key=KEY)
    with pytest.raises(ValueError, match="0 < n < m"):
        search_permutation(jnp.ones((8, 2)), 4, 4, key=KEY)
