# SPDX-License-Identifier: Apache-2.0
import itertools

import hypothesis
import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples

from jaxcompress.formats import (
    NF4,
    Levels,
    additive_powers_of_two,
    codebook,
    powers_of_two,
)
from jaxcompress.quantize import fake_quant, to_qarray

LEVELS = st.lists(
    st.integers(-50, 50).filter(bool), min_size=1, max_size=20, unique=True
).map(lambda v: Levels(tuple(sorted([0, *v]))))


def brute_force(x, fmt):
    """The nearest level, of two the one below."""
    levels = np.asarray(fmt.values, np.float64)
    return levels[np.abs(np.float64(x)[:, None] - levels).argmin(1)]  # pyright: ignore[reportIndexIssue]


@hypothesis.given(fmt=st.one_of(LEVELS, st.just(NF4)), seed=st.integers(0, 99))
@examples(10)
def test_the_nearest_level(fmt, seed):
    draw = np.random.default_rng(seed)
    spread = max(-fmt.low, fmt.high) * 1.3
    x = np.float32(draw.uniform(-spread, spread, 100))
    x = np.concatenate([x, np.float32(fmt.values)])
    got = fmt.round(jnp.asarray(x))
    np.testing.assert_array_equal(got, np.float32(brute_force(x, fmt)))
    np.testing.assert_array_equal(fmt.round(got), got)
    codes = fmt.encode(got)
    assert codes.dtype == jnp.uint8 and int(codes.max()) < len(fmt.values)
    np.testing.assert_array_equal(fmt.decode(codes, jnp.float32), got)
    below, above = (fmt.round(x, f) for f in (jnp.floor, jnp.ceil))
    clipped = np.clip(x, fmt.low, fmt.high)
    assert (below <= clipped).all() and (above >= clipped).all()
    assert np.isin(below, np.float32(fmt.values)).all()
    assert np.isin(above, np.float32(fmt.values)).all()
    strictly = (below < got) & (got < above)
    assert not strictly.any()


def test_ties_go_down_and_nan_stays():
    fmt = Levels((-2, 0, 1, 4))
    middles = jnp.array([-1.0, 0.5, 2.5, jnp.nan])
    np.testing.assert_array_equal(fmt.round(middles), [-2, 0, 1, jnp.nan])


def test_nf4_has_the_quantiles_of_a_normal_distribution():
    from scipy.stats import norm

    # Appendix E of the paper: 8 quantiles of the positive half and 7 of the negative one.
    offset = 0.9677083
    positive = norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    values = np.sort([*positive, 0, *negative])
    np.testing.assert_allclose(NF4.values, values / values.max(), atol=1e-6)


@pytest.mark.parametrize("bits", range(2, 8))
def test_powers_of_two(bits):
    values = np.asarray(powers_of_two(bits).values)
    assert len(values) == 2**bits - 1 and (values == -values[::-1]).all()
    positive = values[values > 0]
    np.testing.assert_array_equal(positive[::-1], 0.5 ** np.arange(len(positive)))
    assert powers_of_two(bits).bits == bits


def apot(bits):
    """Equations 4 to 6 of the paper, k = 2: n terms, {0, 2^-i, 2^-(i+n), 2^-(i+2n)}.

    Of an odd number of magnitude bits one term more, {0, 2^-2n}, as in the authors' code
    (build_power_value), where the last exponents move on by one.
    """
    unsigned = bits - 1
    n, odd = divmod(unsigned, 2)
    if not odd:
        terms = [[0.0] + [2.0 ** -(i + j * n) for j in range(3)] for i in range(n)]
    else:
        terms = [
            [0.0, 2.0**-i, 2.0 ** -(i + n), 2.0 ** -(i + 2 * n + 1)] for i in range(n)
        ]
        terms.append([0.0, 2.0 ** -(2 * n)])
    sums = sorted({sum(c) for c in itertools.product(*terms)})
    return np.asarray(sums) / sums[-1]


@pytest.mark.parametrize("bits", range(2, 8))
def test_additive_powers_of_two_are_those_of_the_paper(bits):
    fmt = additive_powers_of_two(bits)
    values = np.asarray(fmt.values)
    assert (values == -values[::-1]).all()
    np.testing.assert_allclose(values[values >= 0], np.float32(apot(bits)), rtol=1e-7)
    assert len(values) == 2**bits - 1 and fmt.bits == bits


@pytest.mark.parametrize("bits", [1, 8, 0])
def test_other_widths_of_powers_are_refused(bits):
    for make in (powers_of_two, additive_powers_of_two):
        with pytest.raises(ValueError, match=f"bits must be 2 to 7.*got {bits}"):
            make(bits)


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_codebook_is_a_local_optimum(size, shift):
    sample = np.random.default_rng(size).normal(size=2000) + shift
    fmt = codebook(sample, size)
    levels = np.asarray(fmt.values)
    assert len(levels) == size and 0 in levels and np.abs(levels).max() <= 1
    x = sample / np.abs(sample).max()
    nearest = np.abs(x[:, None] - levels).argmin(1)
    for i, level in enumerate(levels):
        if level:  # the zero is fixed
            np.testing.assert_allclose(level, x[nearest == i].mean(), atol=2e-3)


def test_a_codebook_is_nearly_as_good_as_the_best():
    draw = np.random.default_rng(0)
    sample = np.round(draw.normal(size=60), 1)
    x = np.sort(sample / np.abs(sample).max())

    def error(levels):
        return (np.abs(x[:, None] - np.asarray(levels)).min(1) ** 2).sum()

    grid = np.unique(x)
    best = min(error((a, 0, b)) for a in grid[grid < 0] for b in grid[grid > 0])
    assert error(codebook(sample, 3).values) <= 1.02 * best


def test_a_codebook_of_activations_after_a_relu():
    sample = np.maximum(np.random.default_rng(0).normal(size=500), 0)
    fmt = codebook(sample, 4)
    assert fmt.low == 0
    x = jnp.asarray(sample, jnp.float32)
    view = fake_quant(x, fmt)
    assert jnp.abs(view - x).max() < 0.5 * x.max()
    assert (view[x == 0] == 0).all() and len(np.unique(view)) == 4


@pytest.mark.parametrize(
    "values", [(-1.0, 0.0), (0.0, 0.5, 1.0), (-1.0, 0.0, 0.3), (-0.2, 0.0, 1.0)]
)
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_levels_of_one_side_have_a_scale(values, sign):
    fmt = Levels(values)
    x = normal(8, 4)
    x = x if sign == 0 else sign * jnp.abs(x)
    q = to_qarray(x, fmt, scale_shape=(1, 4))
    assert (q.scale > 0).all() and jnp.isfinite(q.dense()).all()  # pyright: ignore[reportOperatorIssue]
    # Nothing lies beyond a level that there is on its side.
    if fmt.high > 0 and sign >= 0:
        assert (x <= fmt.high * q.scale * (1 + 1e-6)).all()  # pyright: ignore[reportOperatorIssue]
    if fmt.low < 0 and sign <= 0:
        assert (x >= fmt.low * q.scale * (1 + 1e-6)).all()  # pyright: ignore[reportOperatorIssue]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0.0,), "got 1"),
        (tuple(range(257)), "got 257"),
        ((0.0, 0.0), "finite and increasing"),
        ((1.0, 0.0), "finite and increasing"),
        ((0.0, float("inf")), "finite"),
        ((0.0, float("nan")), "finite"),
        ((0.0, 1e-60), "finite and increasing"),
        ((-1.0, 1.0), "must contain 0"),
    ],
)
def test_other_lists_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Levels(values)


@pytest.mark.parametrize(
    ("sample", "size", "message"),
    [
        ([], 2, "empty"),
        ([0.0, 0.0], 2, "all zero"),
        ([1.0, np.nan], 2, "finite numbers"),
        ([1.0, 1.0], 3, "distinct levels"),
        ([1.0], 1, "2 to 256"),
        ([1.0], 300, "2 to 256"),
    ],
)
def test_other_samples_are_refused(sample, size, message):
    with pytest.raises(ValueError, match=message):
        codebook(np.asarray(sample), size)
