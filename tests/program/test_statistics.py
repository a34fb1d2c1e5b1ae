# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples

from jaxcompress.program.statistics import (
    Moments,
    gram,
    magnitudes,
    max_magnitude,
    moments,
)

STATISTICS = {
    "absmax": max_magnitude(),
    "moments": moments(),
    "gram": gram(),
    "magnitudes": magnitudes(),
}
GROUPS, FEATURES = 2, 3

# One program of each for all the examples: the numbers of rows are few.
OF = {name: jax.jit(s.of) for name, s in STATISTICS.items()}
MERGE = {name: jax.jit(s.merge) for name, s in STATISTICS.items()}
PERCENTILE = jax.jit(lambda found, share: found.percentile(share))


def draw(rows, *, seed=0, scale=1.0, offset=0.0, whole=False):
    values = np.random.default_rng(seed).normal(size=(GROUPS, rows, FEATURES))
    values = offset + scale * values
    return (np.round(values) if whole else values).astype(np.float32)


def read(name, summary):
    """The result for a leaf that has the shape of the summary."""
    return STATISTICS[name].read(summary, lambda x: x)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", STATISTICS)
@hypothesis.given(
    rows=st.sampled_from([2, 5, 8]),
    share=st.floats(0, 1),
    order=st.randoms(use_true_random=False),
    seed=st.integers(0, 99),
    scale=st.sampled_from([1e-3, 1.0, 30.0]),
)
@examples(15)
def test_a_whole_is_the_merge_of_its_parts(name, rows, share, order, seed, scale):
    x = draw(rows, seed=seed, scale=scale)
    chosen = order.sample(range(rows), 1 + int(share * (rows - 2)))
    others = [i for i in range(rows) if i not in chosen]
    parts = [OF[name](x[:, part]) for part in (chosen, others)]
    whole, merged = OF[name](x), MERGE[name](*parts)
    assert jax.tree.structure(whole) == jax.tree.structure(merged)
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(merged), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6 * scale**2)


@pytest.mark.parametrize("name", ["absmax", "gram", "magnitudes"])
@hypothesis.given(
    cuts=st.lists(st.sampled_from([1, 2, 3]), min_size=2, max_size=5),
    seed=st.integers(0, 99),
)
@examples(15)
def test_where_no_sum_rounds_every_split_has_the_same_bits(name, cuts, seed):
    x = draw(sum(cuts), seed=seed, scale=20.0, whole=True)
    summary = STATISTICS[name].empty(GROUPS, FEATURES)
    for part in np.split(x, np.cumsum(cuts)[:-1], 1):
        summary = MERGE[name](summary, OF[name](part))
    assert_equal(summary, OF[name](x))


def test_moments_of_halves_have_the_same_bits_where_nothing_rounds():
    x = draw(8, scale=20.0, whole=True)
    quarters = [OF["moments"](part) for part in np.split(x, 4, 1)]
    merge = MERGE["moments"]
    merged = merge(merge(*quarters[:2]), merge(*quarters[2:]))
    assert_equal(merged, OF["moments"](x))


@pytest.mark.parametrize("name", STATISTICS)
def test_no_rows_are_neutral(name):
    statistic = STATISTICS[name]
    some, none = OF[name](draw(5)), statistic.empty(GROUPS, FEATURES)
    for merged in (MERGE[name](some, none), MERGE[name](none, some)):
        assert_equal(merged, some)
        kinds = [
            [(x.shape, x.dtype) for x in jax.tree.leaves(s)] for s in (merged, none)
        ]
        assert kinds[0] == kinds[1]
    assert_equal(MERGE[name](none, none), none)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_batch_of_no_rows_is_empty(name):
    found = OF[name](np.zeros((GROUPS, 0, FEATURES), np.float32))
    assert_equal(found, STATISTICS[name].empty(GROUPS, FEATURES))


def test_absmax_is_the_largest_magnitude_of_every_feature():
    x = draw(9)
    found = read("absmax", OF["absmax"](x))
    np.testing.assert_array_equal(found, np.abs(x).max(1))


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("parts", [1, 3, 50])
def test_moments_equal_those_in_float64_whatever_is_added_to_all(offset, parts):
    x = draw(150, offset=offset)
    summary = moments().empty(GROUPS, FEATURES)
    for part in np.split(x, parts, 1):
        summary = MERGE["moments"](summary, OF["moments"](part))
    exact = x.astype(np.float64)
    np.testing.assert_allclose(summary.mean, exact.mean(1), rtol=1e-6, atol=1e-6)
    # The variance is about 1; a difference of squares would be off by 6e-8 * offset**2.
    np.testing.assert_allclose(
        summary.var, exact.var(1), rtol=1e-5 + 2e-7 * offset, atol=0
    )
    norm = np.linalg.norm(exact, axis=1)
    np.testing.assert_allclose(summary.norm, norm, rtol=1e-5)
    assert int(summary.count) == 150 and summary.count.dtype == jnp.uint32


def test_counts_of_rows_go_beyond_two_thousand_million():
    """As many rows as uint32 holds: four thousand million."""
    half = Moments(jnp.uint32(2**31 - 1), jnp.ones((1, 1)), jnp.zeros((1, 1)))
    both = moments().merge(half, half._replace(mean=3 * half.mean))
    assert int(both.count) == 2**32 - 2
    np.testing.assert_allclose(both.mean, [[2.0]])
    np.testing.assert_allclose(both.var, [[1.0]])
    np.testing.assert_allclose(both.norm, [[np.sqrt(5.0 * 2**32)]])


@pytest.mark.parametrize("layers", [(), (2,), (2, 3)])
def test_norms_of_stacked_layers_lie_along_their_axes(layers):
    x = np.random.default_rng(0).normal(size=(*layers, 7, 4))
    of = moments().of
    for _ in layers:
        of = jax.vmap(of)
    summary = of(jnp.asarray(x[..., None, :, :], jnp.float32))
    found = moments().read(summary, lambda x: x.reshape(*layers, 4, 1))
    assert found.count.shape == layers
    expected = np.linalg.norm(x, axis=-2)[..., None]
    np.testing.assert_allclose(found.norm, expected, rtol=1e-5)


def test_grams_equal_those_in_float64():
    x = draw(40)
    found = read("gram", OF["gram"](x))
    exact = x.astype(np.float64)
    expected = exact.transpose(0, 2, 1) @ exact
    np.testing.assert_allclose(found.gram, expected, rtol=1e-5, atol=1e-5)
    assert int(found.count) == 40


def test_grams_do_not_follow_the_default_precision():
    """Other devices multiply float32 in fewer bits, by which a Hessian is singular."""
    with jax.default_matmul_precision("bfloat16"):
        program = str(jax.make_jaxpr(gram().of)(draw(4)))
    assert "HIGHEST" in program and "DEFAULT" not in program


def test_one_group_needs_no_axis():
    x = draw(5)[:1]
    assert read("gram", OF["gram"](x)).gram.shape == (FEATURES, FEATURES)
    assert read("absmax", OF["absmax"](x)).shape == (1, FEATURES)


@hypothesis.given(
    seed=st.integers(0, 99),
    share=st.sampled_from([0.5, 0.9, 0.99, 1.0]),
    scale=st.sampled_from([1e-6, 1.0, 1e6]),
    shift=st.sampled_from([-3.0, 0.0, 1.0]),
)
def test_percentiles_are_those_of_the_values_but_for_the_width_of_a_bucket(
    seed, share, scale, shift
):
    x = draw(80, seed=seed, scale=scale, offset=shift * scale)
    low, high = PERCENTILE(OF["magnitudes"](x), share)
    values = np.sort(x.ravel())
    out = int((1 - share) * values.size + 1e-3)  # so many are left out on each side
    for bound, value, outward in [
        (float(low), values[out], -1),
        (float(high), values[-1 - out], 1),
    ]:
        # To the end of its bucket, which is a 32nd of its value wide at most.
        assert 0 <= outward * (bound - value) <= abs(value) / 32
    assert (values < float(low)).sum() <= out and (values > float(high)).sum() <= out


def test_percentiles_are_monotone_and_the_whole_holds_everything():
    x = draw(60)
    found = OF["magnitudes"](x)
    shares = [0.5, 0.75, 0.9, 0.99, 1.0]
    lows, highs = zip(*(PERCENTILE(found, share) for share in shares), strict=True)
    assert sorted(lows, reverse=True) == list(lows) and sorted(highs) == list(highs)
    assert lows[-1] <= x.min() and x.max() <= highs[-1]


def test_percentiles_of_stacked_layers_are_those_of_each():
    of_each = [OF["magnitudes"](draw(20, seed=i, scale=3.0**i)) for i in range(2)]
    stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *of_each)
    found = PERCENTILE(stacked, 0.9)
    expected = [PERCENTILE(one, 0.9) for one in of_each]
    for bounds, of_one in zip(found, zip(*expected, strict=True), strict=True):
        assert bounds.tolist() == [float(x) for x in of_one]


@pytest.mark.parametrize("sign", [-1, 1])
def test_all_values_of_one_sign_lie_within_their_bounds(sign):
    x = sign * (np.abs(draw(20)) + 0.5)
    low, high = PERCENTILE(OF["magnitudes"](x), 1.0)
    assert low <= x.min() and x.max() <= high
    assert low * high > 0


def test_a_histogram_counts_every_value_once():
    x = np.array([[[0.0, -0.0, 1e-30], [-1e30, 2.0, -2.0]]], np.float32)
    counts = OF["magnitudes"](x).counts
    assert counts.sum() == x.size
    # Zeros of both signs are no negative values.
    assert counts.sum(1).tolist() == [2, 4]


def test_the_percentile_of_no_values_is_no_number():
    low, high = PERCENTILE(magnitudes().empty(1, 1), 0.99)
    assert jnp.isnan(low) and jnp.isnan(high)


def test_a_value_that_is_no_number_is_not_forgotten():
    x = draw(20)
    x[0, 3, 1] = np.nan
    found = OF["magnitudes"](x)
    assert all(map(jnp.isnan, PERCENTILE(found, 0.9)))
    zeros = OF["magnitudes"](np.zeros((1, 1, 1), np.float32))
    many = zeros._replace(counts=zeros.counts * 2**30)
    for _ in range(4):
        found = MERGE["magnitudes"](found, many)
    assert all(map(jnp.isnan, PERCENTILE(found, 0.9)))


def test_counts_of_values_do_not_wrap_around():
    """As of a rectified convolution, over a few thousand images of ImageNet."""
    zeros = OF["magnitudes"](np.zeros((1, 1, 1), np.float32))
    many = zeros._replace(counts=zeros.counts * 2**30)
    for _ in range(3):
        many = MERGE["magnitudes"](many, many)
    low, high = PERCENTILE(many, 0.99)
    assert 0 <= low <= high < 1e-8
