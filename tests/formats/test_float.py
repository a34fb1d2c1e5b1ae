# SPDX-License-Identifier: Apache-2.0
"""Small floats against the casts of ml_dtypes, which are an independent implementation."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from examples import examples
from variants import marked

from jaxcompress import formats

FORMATS = {
    name: getattr(formats, name)
    for name in ("E5M2", "E4M3", "E3M2", "E2M3", "E2M1", "BF16", "F16")
}
NAMES = list(FORMATS)
OTHERS = ["float8_e4m3", "float8_e3m4", "float8_e4m3fnuz"]


def values_of(fmt):
    """All finite values, ascending, as float64; from the bit patterns."""
    dtype = np.dtype(fmt.name)
    patterns = np.arange(2**fmt.bits, dtype=np.uint16 if fmt.bits > 8 else np.uint8)
    with np.errstate(invalid="ignore"):
        values = patterns.view(dtype).astype(np.float64)
    return np.unique(values[np.isfinite(values)])


def cast(x, fmt):
    """What ml_dtypes makes of float32 values, saturated."""
    bound = np.float32(float(ml_dtypes.finfo(np.dtype(fmt.name)).max))
    return np.clip(x, -bound, bound).astype(np.dtype(fmt.name)).astype(np.float32)


def hard_values(fmt):
    """Every value (of bfloat16 a part), the middles, and the neighbors of both."""
    values = values_of(fmt)
    if fmt.bits == 16:
        values = values[np.abs(values) > 2e-36][:: 97 if fmt.name == "bfloat16" else 31]
    middles = np.float32((values[1:] + values[:-1]) / 2)
    at = np.concatenate([np.float32(values), middles])
    up, down = (np.nextafter(at, np.float32(end)) for end in (np.inf, -np.inf))
    at = np.concatenate(
        [at, up, down, np.array([0, -0.0, 1e-30, -1e30, 3e38], np.float32)]
    )
    # Subnormal float32 numbers are zero to XLA.
    return at[(np.abs(at) > 2e-36) | (at == 0)]


@pytest.mark.parametrize("name", NAMES)
def test_rounding_is_the_cast_of_ml_dtypes(name):
    fmt = FORMATS[name]
    x = hard_values(fmt)
    got = np.asarray(fmt.round(jnp.asarray(x)))
    np.testing.assert_array_equal(got, cast(x, fmt))
    np.testing.assert_array_equal(jax.jit(fmt.round)(x), got)
    assert np.isnan(fmt.round(jnp.array([jnp.nan]))).all()
    infinite = fmt.round(jnp.array([jnp.inf, -jnp.inf]))
    assert infinite.tolist() == [fmt.high, fmt.low]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_has_a_code_and_comes_back(name):
    fmt = FORMATS[name]
    values = np.float32(values_of(fmt))
    if name == "BF16":
        values = values[(np.abs(values) > 2e-36) | (values == 0)]  # pyright: ignore[reportIndexIssue]
    np.testing.assert_array_equal(fmt.round(jnp.asarray(values)), values)
    codes = fmt.encode(jnp.asarray(values))
    assert codes.dtype == fmt.dtype and codes.dtype.itemsize == (fmt.bits + 7) // 8
    for dtype in (jnp.float32, jnp.bfloat16) if fmt.bits < 16 else (jnp.float32,):
        np.testing.assert_array_equal(
            fmt.decode(codes, dtype).astype(jnp.float32), values
        )
    np.testing.assert_array_equal(jax.jit(fmt.encode)(values), codes)
    if fmt.bits < 8:  # the bit patterns are those of the dtype
        want = (values + 0.0).astype(np.dtype(fmt.name)).view(np.uint8)
        np.testing.assert_array_equal(codes, want)
    assert (fmt.low, fmt.high) == (values.min(), values.max())
    zeros = fmt.decode(fmt.encode(jnp.array([0.0, -0.0])), jnp.float32)
    assert not np.signbit(zeros).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_values_beside_are_found_by_floor_and_ceil(name, dtype):
    fmt = FORMATS[name]
    values = values_of(fmt)
    draw = np.random.default_rng(0)
    x = draw.normal(size=300) * np.exp2(draw.integers(-8, 6, 300))
    x = jnp.asarray(x, dtype).clip(fmt.low, fmt.high)
    below, above = (fmt.round(x, f) for f in (jnp.floor, jnp.ceil))
    assert below.dtype == above.dtype == dtype
    if name in ("F16", "BF16") and dtype != jnp.float32:
        return  # values between its own are not exact in the dtype of the input
    wide = np.asarray(x, np.float64)
    at = np.searchsorted(values, wide, side="right") - 1
    np.testing.assert_array_equal(np.asarray(below, np.float64), values[at])
    at = np.searchsorted(values, wide, side="left")
    np.testing.assert_array_equal(np.asarray(above, np.float64), values[at])


@hypothesis.given(
    name=st.sampled_from(NAMES),
    x=st.lists(st.floats(width=32, allow_nan=False), min_size=8, max_size=8),
)
@examples(60)
def test_rounding_is_idempotent_and_odd(name, x):
    fmt = FORMATS[name]
    x = jnp.asarray(np.float32(x))
    once = fmt.round(x)
    np.testing.assert_array_equal(fmt.round(once), once)
    np.testing.assert_array_equal(fmt.round(-x), -once)
    normal = (jnp.abs(x) > 2e-36) | (x == 0)
    np.testing.assert_array_equal(once[normal], cast(np.asarray(x[normal]), fmt))


def test_the_range_has_half_a_step_of_slack():
    for fmt, slack in ((formats.E4M3, 16), (formats.E2M1, 1), (formats.E2M3, 0.25)):
        edge = jnp.float32(fmt.high + slack)
        beside = jnp.array([edge, -edge, edge * 1.0001, -edge * 1.0001])
        assert fmt.inside(beside).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    "name", ["float32", "float64", "int8", "banana", "uint4", "float8_e8m0fnu", ""]
)
def test_what_is_no_float_of_few_bits_is_refused(name):
    with pytest.raises(
        ValueError, match="must be a float dtype of ml_dtypes with 4, 6, 8 or 16 bits"
    ):
        formats.Float(name)


@pytest.mark.parametrize(
    "name", marked(OTHERS, slow=("float8_e4m3", "float8_e4m3fnuz"))
)
def test_other_dtypes_of_ml_dtypes_work_too(name):
    fmt = formats.Float(name)
    x = hard_values(fmt)
    np.testing.assert_array_equal(fmt.round(jnp.asarray(x)), cast(x, fmt))
    values = np.float32(values_of(fmt))
    codes = fmt.encode(jnp.asarray(values))
    np.testing.assert_array_equal(fmt.decode(codes, jnp.float32), values)
