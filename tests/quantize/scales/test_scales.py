# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.scales import absmax, of_range

BITS = [*range(1, 9), 16]
ENDS = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def spanned(ends, fmt):
    """Smallest and largest value of the grid of a range, and its scale."""
    scale, zero_point = of_range(jnp.float32(ends[0]), jnp.float32(ends[1]), fmt)
    offset = 0 if zero_point is None else zero_point
    return (fmt.low - offset) * scale, (fmt.high - offset) * scale, scale


@hypothesis.given(bits=st.sampled_from(BITS), ends=st.tuples(ENDS, ENDS).map(sorted))
def test_a_symmetric_grid_ends_at_the_larger_magnitude(bits, ends):
    low, high, _ = spanned(ends, Int(bits))
    bound = max(abs(end) for end in ends)
    if bound > 1e-30:
        np.testing.assert_allclose(high, bound, rtol=1e-6)
        assert low == -high


@hypothesis.given(bits=st.sampled_from(BITS), ends=st.tuples(ENDS, ENDS).map(sorted))
def test_an_asymmetric_grid_spans_the_range_and_zero(bits, ends):
    low, high, scale = spanned(ends, Int(bits, symmetric=False))
    wide = min(ends[0], 0), max(ends[1], 0)
    if wide[1] - wide[0] > 1e-30:
        np.testing.assert_allclose(high - low, wide[1] - wide[0], rtol=1e-6)
        # Zero has a code, so the grid is shifted against the range by up to half a step.
        slack = 0.5 * scale + 1e-6 * (wide[1] - wide[0])
        assert abs(low - wide[0]) <= slack and abs(high - wide[1]) <= slack
    assert low <= 0 <= high


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("tiny", [0.0, 1e-41])
def test_a_range_that_is_too_small_to_divide_by_has_the_scale_one(symmetric, tiny):
    ends = jnp.float32(-tiny), jnp.float32(tiny)
    scale, zero_point = of_range(*ends, Int(8, symmetric))
    assert scale == 1 and (zero_point is None if symmetric else zero_point == 0)
    assert fake_quant(jnp.zeros(3), Int(8, symmetric)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("fmt", [Int(8), Int(4, symmetric=False)])
@pytest.mark.parametrize("ends", [(jnp.nan, jnp.nan), (0, jnp.nan), (jnp.nan, 1)])
def test_an_unknown_range_is_loud(fmt, ends):
    low, high = (jnp.full((1,), end, jnp.float32) for end in ends)
    assert jnp.isnan(of_range(low, high, fmt)[0])
    view = fake_quant(jnp.ones(3), fmt, scale=lambda *_: of_range(low, high, fmt))
    assert jnp.isnan(view).all()


@hypothesis.given(
    bits=st.sampled_from(BITS[1:]), symmetric=st.booleans(), seed=st.integers(0, 99)
)
def test_the_scales_of_weights_are_those_of_their_extremes(bits, symmetric, seed):
    fmt = Int(bits, symmetric)
    w = normal(12, 5, seed=seed)
    low, high = (jnp.stack([f(w[:6], 0), f(w[6:], 0)]) for f in (jnp.min, jnp.max))
    for of_weights, known in zip(
        absmax(w, (2, 5), fmt), of_range(low, high, fmt), strict=True
    ):
        if known is None:
            assert of_weights is None
        else:
            np.testing.assert_array_equal(of_weights, known)


@pytest.mark.parametrize("fmt", [Int(3), Int(8), Int(8, symmetric=False)])
def test_jit_and_eager_have_the_same_bits(fmt):
    high = jnp.abs(normal(64))
    low = high - 2 * jnp.abs(normal(64, seed=1))
    jitted = jax.jit(lambda low, high: of_range(low, high, fmt))
    jax.tree.map(
        np.testing.assert_array_equal, jitted(low, high), of_range(low, high, fmt)
    )


def test_values_beyond_a_range_are_clipped_to_its_ends():
    fmt = Int(4, symmetric=False)
    scale, zero_point = of_range(jnp.array([-5.0]), jnp.array([10.0]), fmt)
    values = jnp.array([-9.0, 0.0, 3.0, 99.0])
    q = to_qarray(values, fmt, scale=lambda *_: (scale, zero_point))
    assert q.codes.tolist() == [0, 5, 8, 15]
    np.testing.assert_allclose(q.dense(), [-5.0, 0.0, 3.0, 10.0], rtol=1e-6)
