# SPDX-License-Identifier: Apache-2.0
import chex
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.gradients import through_scale
from jaxcompress.quantize.rounding import stochastic

BITS = [*range(1, 9), 16]


def codes_of(bits, symmetric, narrow):
    """The codes there are, written down independently."""
    if symmetric and bits == 1:
        return [-1, 0, 1]  # the zero is that of pruned weights
    if symmetric:
        first = -(2 ** (bits - 1)) + (narrow is not False)
        return list(range(first, 2 ** (bits - 1)))
    return list(range(int(narrow is True), 2**bits))


KINDS = [
    (bits, symmetric, narrow)
    for bits in BITS
    for symmetric in (True, False)
    for narrow in (None, True, False)
    if symmetric or bits > 1 or not narrow
]


@pytest.mark.parametrize(("bits", "symmetric", "narrow"), KINDS)
def test_the_codes_are_a_range_and_rounding_changes_none(bits, symmetric, narrow):
    fmt = Int(bits, symmetric, narrow)
    codes = codes_of(bits, symmetric, narrow)
    assert (fmt.low, fmt.high) == (codes[0], codes[-1])
    levels = np.asarray(codes, np.float32)
    np.testing.assert_array_equal(fmt.round(jnp.asarray(levels)), levels)
    encoded = fmt.encode(jnp.asarray(levels))
    assert encoded.dtype == fmt.dtype
    np.testing.assert_array_equal(encoded.astype(int), codes)
    np.testing.assert_array_equal(fmt.decode(encoded, jnp.float32), levels)


@pytest.mark.parametrize(("bits", "symmetric", "narrow"), KINDS)
def test_every_value_goes_to_the_nearest_code(bits, symmetric, narrow):
    fmt = Int(bits, symmetric, narrow)
    codes = np.asarray(codes_of(bits, symmetric, narrow), np.float64)
    if fmt.binary:
        codes = np.array([-1.0, 1.0])
    draw = np.random.default_rng(bits)
    x = np.float32(draw.uniform(codes[0] - 2, codes[-1] + 2, 200))
    got = np.asarray(fmt.round(jnp.asarray(x)))
    assert np.isin(got, codes).all()
    nearest = np.abs(np.clip(x, codes[0], codes[-1])[:, None] - got[:, None]).min(1)  # pyright: ignore[reportIndexIssue]
    assert (nearest <= (1.0 if fmt.binary else 0.5)).all()
    assert np.isnan(fmt.round(jnp.array([jnp.nan]))).all()


@hypothesis.given(
    bits=st.sampled_from(BITS),
    symmetric=st.booleans(),
    narrow=st.sampled_from([None, True, False]),
    seed=st.integers(0, 99),
)
@examples(40)
def test_traced_bits_are_static_bits(bits, symmetric, narrow, seed):
    hypothesis.assume(symmetric or bits > 1 or not narrow)
    x = normal(16, 3, seed=seed).at[0].set(0)
    static = fake_quant(x, Int(bits, symmetric, narrow), scale_shape=(1, 3))
    traced = TRACED(x, jnp.int32(bits), symmetric, narrow)
    assert np.asarray(traced).tobytes() == np.asarray(static).tobytes()


def _traced(x, bits, symmetric, narrow):
    return fake_quant(x, Int(bits, symmetric, narrow), scale_shape=(1, 3))


TRACED = jax.jit(_traced, static_argnums=(2, 3))


def test_one_program_serves_all_widths():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def quantized(x, bits):
        return fake_quant(x, Int(bits))

    x = normal(9, 4)
    for bits in BITS:
        got = quantized(x, jnp.int32(bits))
        np.testing.assert_array_equal(got, fake_quant(x, Int(bits)))
    many = jax.vmap(lambda b: fake_quant(x, Int(b)))(jnp.asarray(BITS))
    each = jnp.stack([fake_quant(x, Int(b)) for b in BITS])
    np.testing.assert_array_equal(many, each)


@pytest.mark.slow
@pytest.mark.parametrize("symmetric", [True, False])
def test_bits_can_be_learned(symmetric):
    x = normal(64, 8, seed=1)

    def error(bits):
        fmt = Int(bits, symmetric)
        view = fake_quant(x, fmt, scale_shape=(1, 8), gradient=through_scale)
        return jnp.mean((view - x) ** 2)

    widths = jnp.array([1.0, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 16.0])
    values, slopes = jax.vmap(jax.value_and_grad(error))(widths)
    assert jnp.isfinite(slopes).all()
    inner = slice(2, -1)
    assert (slopes[inner] < 0).all() and (jnp.diff(values[inner]) < 0).all()
    # The error falls by a factor of 4 a bit: d log(error) / d bits is -2 log 2.
    relative = (slopes / values)[4:-1]
    np.testing.assert_allclose(relative, -2 * np.log(2), rtol=0.5)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_element_that_sets_the_range_does_not_pull_at_the_bits(symmetric):
    x = normal(50, seed=2)

    def ends(bits):
        fmt = Int(bits, symmetric)
        view = fake_quant(x, fmt, gradient=through_scale)
        return jnp.stack([view[jnp.argmax(jnp.abs(x))], view[jnp.argmax(x)]])

    # It is on the grid at every width, or beside it by less than a step: the rounding
    # error, of up to a step, shrinks with the step.
    slopes = jax.jit(jax.jacobian(ends))
    for bits in (3.0, 4.0, 5.7):
        step = 2 * np.abs(x).max() / (2**bits - 2)
        assert (np.abs(slopes(bits)) <= step).all()


def test_a_compressor_of_traced_bits_wants_a_width_to_ship():
    params = {"kernel": jnp.ones((4, 2))}

    def ship(bits):
        c = jc.weight_quantization(bits=bits)
        return jc.dense(c.finalize(params, c.init(params)))

    with pytest.raises(TypeError, match=r"finalize\s+with Int\(int\(bits\)\)"):
        jax.jit(ship)(jnp.int32(4))


@pytest.mark.parametrize("bits", [True, 4.0, 0, 9, 12, 32, -1, "4", None])
def test_other_bits_are_refused(bits):
    with pytest.raises(
        ValueError, match="bits must be an integer from 1 to 8, or 16; got"
    ):
        Int(bits)
    with pytest.raises(ValueError, match=r"bits must be a scalar, got shape .* vmap"):
        Int(jnp.arange(3))


def test_a_grid_of_one_code_is_refused():
    with pytest.raises(ValueError, match="only one code"):
        Int(1, symmetric=False, narrow=True)


@pytest.mark.parametrize("narrow", [None, True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_every_code_is_reached_and_nothing_wraps(bits, symmetric, narrow):
    fmt = Int(bits, symmetric, narrow)
    codes = np.asarray(codes_of(bits, symmetric, narrow), np.float32)
    zero = 0 if symmetric else codes[len(codes) // 3]
    q = to_qarray(jnp.asarray((codes - zero) * 0.5), fmt)
    np.testing.assert_array_equal(q.codes.astype(int), codes)  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(q.dense(), (codes - zero) * 0.5, rtol=1e-6)


def test_signs_are_drawn_with_the_probability_of_binary_connect():
    read = stochastic(jax.random.key(0)).read
    state = stochastic(jax.random.key(0)).init("w", (4000,))
    for steps, up in ((-2.0, 0.0), (-1.0, 0.0), (-0.5, 0.25), (0.2, 0.6), (1.0, 1.0)):
        levels = Int(1).round(jnp.full(4000, steps), read(state, (4000,)))
        assert set(np.unique(levels)) <= {-1, 1}
        assert abs(float((levels == 1).mean()) - up) < 5 * (0.25 / 4000) ** 0.5
    zeros = Int(1).round(jnp.zeros(4000), read(state, (4000,)))
    assert not zeros.any()
