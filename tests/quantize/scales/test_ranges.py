# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples

from jaxcompress.numerics.histogram import edges, histogram
from jaxcompress.quantize.scales import dynamic, minmax, moving_average, percentile

SIZE = 24
KEEPING = [minmax(), moving_average(), percentile()]
KINDS = [*KEEPING, dynamic(), dynamic(-1)]
# Whole steps of 1/8, so that the rounding of the arithmetic hides nothing.
VALUES = st.lists(
    st.integers(-800, 800).map(lambda n: n / 8), min_size=SIZE, max_size=SIZE
).map(lambda values: np.array(values, np.float32))
CUTS = st.sets(st.sampled_from([6, 12, 18]))


def seen(ranges, batches):
    state = ranges.init()
    for batch in batches:
        state = ranges.observe(state, jnp.asarray(batch))
    return state


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@hypothesis.given(values=VALUES, cuts=CUTS)
def test_minmax_is_exact_over_any_split(values, cuts):
    parts = np.split(values, sorted(cuts))
    state = seen(minmax(), parts)
    assert minmax().read(state, jnp.zeros(())) == (values.min(), values.max())
    assert state.count == len(parts)


@hypothesis.given(values=VALUES, cuts=CUTS)
def test_percentiles_are_exact_over_any_split(values, cuts):
    parts = np.split(values, sorted(cuts))
    equal(seen(percentile(), parts), seen(percentile(), [values]))


@hypothesis.given(
    decay=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    batches=st.lists(VALUES, min_size=1, max_size=5),
)
def test_a_moving_average_starts_with_the_first_batch(decay, batches):
    low, high = float(batches[0].min()), float(batches[0].max())
    for batch in batches[1:]:
        low = decay * low + (1 - decay) * float(batch.min())
        high = decay * high + (1 - decay) * float(batch.max())
    ranges = moving_average(decay)
    got = ranges.read(seen(ranges, batches), jnp.zeros(()))
    np.testing.assert_allclose(got, (low, high), rtol=1e-5, atol=1e-4)
    if len(batches) == 1:
        assert got == (batches[0].min(), batches[0].max())


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5, float("nan")])
def test_a_bad_decay_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\), got {decay}"):
        moving_average(decay)


@hypothesis.given(
    # Multiples of 1/32, so that the share of SIZE values rounds the same way everywhere.
    share=st.sampled_from([0.53125, 0.75, 0.875, 0.96875, 1.0]),
    sign=st.sampled_from(["negative", "positive", "both"]),
    zeros=st.integers(0, SIZE),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 999),
)
@examples(60)
def test_percentiles_are_those_of_numpy_within_a_bucket(share, sign, zeros, size, seed):
    values = size * np.random.default_rng(seed).standard_normal(SIZE)
    if sign != "both":
        values = np.abs(values) * (-1 if sign == "negative" else 1)
    values[:zeros] = 0
    values = values.astype(np.float32)
    ranges = percentile(share)
    low, high = ranges.read(seen(ranges, [values]), jnp.zeros(()))
    # The value that has a share of all at or below it, and its mirror image.
    want = np.percentile(values, 100 * share, method="inverted_cdf")
    mirrored = -np.percentile(-values, 100 * share, method="inverted_cdf")
    for got, exact, outward in ((high, want, 1), (low, mirrored, -1)):
        # To the outer end of its bucket, so that nothing that it holds is clipped.
        beyond = outward * (float(got) - float(exact))
        assert 0 <= beyond <= abs(exact) / 32 + edges()[0]


def test_outliers_do_not_widen_a_percentile():
    values = np.linspace(-1, 1, 2001, dtype=np.float32)
    values[0], values[-1] = -1e4, 1e4
    ranges = percentile(0.999)
    state = seen(ranges, [values])
    low, high = ranges.read(state, jnp.zeros(()))
    assert -1.04 < low < -0.99 and 0.99 < high < 1.04
    low, high = percentile(1.0).read(state, jnp.zeros(()))
    assert low <= -1e4 and high >= 1e4


@pytest.mark.parametrize("share", [0.5, 0, 1.01, float("nan")])
def test_a_bad_share_is_refused(share):
    with pytest.raises(ValueError, match=rf"share must be in \(0.5, 1\].*got {share}"):
        percentile(share)


def test_a_dynamic_range_is_that_of_the_array_or_of_each_row():
    x = normal(2, 3, 5)
    for axis, shape in ((None, (1, 1, 1)), (-1, (2, 3, 1)), ((0, 1), (1, 1, 5))):
        low, high = dynamic(axis).read((), x)
        assert low.shape == high.shape == shape
        np.testing.assert_array_equal(low, np.min(x, axis, keepdims=True))
        np.testing.assert_array_equal(high, np.max(x, axis, keepdims=True))


@pytest.mark.parametrize("ranges", KEEPING)
def test_a_range_of_nothing_seen_is_no_number(ranges):
    low, high = ranges.read(ranges.init(), jnp.ones(3))
    assert jnp.isnan(low) and jnp.isnan(high)
    low, high = ranges.read(ranges.observe(ranges.init(), jnp.ones(3)), jnp.ones(3))
    assert jnp.isfinite(low) and jnp.isfinite(high)


@pytest.mark.parametrize("ranges", KINDS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_state_keeps_its_kind_and_scans(ranges, dtype):
    x = normal(4, 3, 2).astype(dtype)
    state, _ = jax.lax.scan(
        lambda state, x: (ranges.observe(state, x), None), ranges.init(), x
    )
    alone = jax.jit(lambda x: seen(ranges, x))(x)
    assert jax.tree.map(jax.typeof, state) == jax.tree.map(jax.typeof, ranges.init())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state, alone)
    for end in ranges.read(state, x[0]):
        assert end.dtype == jnp.float32


@pytest.mark.parametrize("ranges", KEEPING)
def test_no_gradient_flows_into_what_was_seen(ranges):
    def width(x):
        low, high = ranges.read(seen(ranges, [x]), x)
        return high - low

    assert not jax.grad(width)(jnp.array([1.0, -2.0])).any()


@hypothesis.given(
    # XLA may take subnormals for zeros; the first bucket has both.
    values=st.lists(
        st.floats(width=32, allow_nan=False, allow_subnormal=False),
        min_size=8,
        max_size=8,
    )
)
def test_every_value_is_counted_under_the_edge_above_it(values):
    x = np.array(values, np.float32)
    counts = np.asarray(histogram(jnp.asarray(x)))
    assert counts.sum() == x.size and counts.dtype == np.int32
    # What is larger than all edges is in the last bucket.
    bucket = np.searchsorted(edges()[:-1], np.abs(x), side="right")
    want = np.zeros_like(counts)
    np.add.at(want, ((x >= 0).astype(int), bucket), 1)
    np.testing.assert_array_equal(counts, want)


def test_edges_ascend_in_steps_of_three_percent():
    upper = edges().astype(np.float64)
    ratio = upper[1:] / upper[:-1]
    assert (ratio > 1 + 1 / 65).all() and (ratio <= 1 + 1 / 32).all()
    assert upper[-1] == 2.0**32 and 2.0**-32 < upper[0] <= 2.0**-32 * (1 + 1 / 32)
