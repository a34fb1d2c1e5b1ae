# SPDX-License-Identifier: Apache-2.0
"""Every gradient against its formula, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.gradients import (
    clipped,
    pass_through,
    polynomial,
    soft,
    straight_through,
    through_scale,
    to_the_bound,
)
from jaxcompress.quantize.scales import absmax, unit

ALL = {
    "straight_through": straight_through,
    "pass_through": pass_through,
    "clipped": clipped,
    "through_scale": through_scale,
    "to_the_bound": to_the_bound,
    "soft": soft(),
    "polynomial": polynomial,
}
# In steps of 1: inside, in the slack, beyond; of a grid from -7 to 7.
V = np.array(
    [-9.6, -7.4, -6.8, -2.3, -0.5, 0.0, 0.2, 3.4, 5.5, 7.3, 7.8, 12.0], np.float32
)
STEP = np.float32(0.25)


def with_scale(v, fmt, gradient, zero_point=None):
    """Gradients of the sum, each value for itself, to values, scale and zero point."""
    x = jnp.asarray(v * STEP)

    def view(x, scale, zero):
        chosen = scale[None], None if zero_point is None else zero[None]
        return fake_quant(x[None], fmt, scale=lambda *_: chosen, gradient=gradient)[0]

    zero = jnp.float32(0 if zero_point is None else zero_point)
    grads = jax.jit(jax.vmap(jax.grad(view, (0, 1, 2)), (0, None, None)))
    return grads(x, jnp.float32(STEP), zero)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("fmt", [Int(1), Int(4), Int(4, False), formats.NF4])
def test_all_derivatives_are_finite_and_compile(name, fmt):
    x = normal(6, 4).at[0, 0].set(0)

    def loss(x, scale):
        def half(values, shape, fmt):
            chosen, zero_point = absmax(values, shape, fmt)
            return chosen * scale, zero_point  # clips some

        return jnp.sum(fake_quant(x, fmt, scale=half, gradient=ALL[name]) ** 2)

    at = (x, jnp.float32(0.6))
    grads = jax.grad(loss, (0, 1))

    def everything(x, scale):
        primal, forward = jax.jvp(loss, (x, scale), (jnp.ones_like(x), 1.0))
        return primal, forward, jax.jvp(grads, (x, scale), (jnp.ones_like(x), 1.0))

    primal, forward, (first, second) = jax.jit(everything)(*at)
    for value in jax.tree.leaves((primal, forward, first, second)):
        assert jnp.isfinite(value).all()
    reverse = jnp.sum(first[0]) + first[1]
    np.testing.assert_allclose(forward, reverse, rtol=1e-4, atol=1e-4)
    assert jnp.any(first[0] != 0)  # weights of every format can be trained


@pytest.mark.parametrize("name", ["straight_through", "through_scale", "to_the_bound"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_element_that_sets_the_range_is_inside(name, symmetric, bits):
    for seed in range(5):
        x = normal(9, 4, seed=seed)
        view = lambda x: fake_quant(x, Int(bits, symmetric), gradient=ALL[name])  # noqa: E731, B023
        np.testing.assert_array_equal(jax.grad(lambda x: view(x).sum())(x), 1)  # noqa: B023


def test_straight_through_and_its_relatives():
    inside = (V >= -7.5) & (V <= 7.5)
    strictly = (V >= -7) & (V <= 7)
    for gradient, want in (
        (straight_through, inside),
        (pass_through, np.ones_like(V)),
        (clipped, strictly),
        (through_scale, inside),
        (to_the_bound, inside),
    ):
        to_x, _, _ = with_scale(V, Int(4), gradient)
        np.testing.assert_array_equal(to_x, np.float32(want))
    sign = np.array([-1.1, -0.9, 0.3, 1.0, 1.2], np.float32)
    to_x, _, _ = with_scale(sign, Int(1), clipped)
    assert to_x.tolist() == [0, 1, 1, 1, 0]
    to_x, _, _ = with_scale(sign, Int(1), straight_through)
    assert to_x.tolist() == [1, 1, 1, 1, 1]


def test_the_step_size_learns_as_in_lsq():
    to_x, to_scale, _ = with_scale(V, Int(4), through_scale)
    inside = (V >= -7.5) & (V <= 7.5)
    bound = np.clip(np.round(V), -7, 7)
    np.testing.assert_allclose(to_scale, np.where(inside, bound - V, bound), atol=1e-5)
    np.testing.assert_array_equal(to_x, np.float32(inside))


def test_the_zero_point_learns_as_in_lsq_plus():
    zero, fmt = 5, Int(4, symmetric=False)  # codes 0 to 15: steps from -5 to 10
    v = np.array([-9.0, -6.4, -5.2, -1.3, 0.0, 0.4, 4.6, 9.7, 11.3, 14.0], np.float32)
    to_x, to_scale, to_zero = with_scale(v, fmt, through_scale, zero)
    inside = (v >= -6) & (v <= 11)
    level = np.clip(np.round(v), -5, 10)
    np.testing.assert_array_equal(to_x, np.float32(inside))
    np.testing.assert_allclose(to_scale, np.where(inside, level - v, level), atol=1e-5)
    # The paper's offset is -zero * scale, whose derivative is 1 where it clips.
    np.testing.assert_allclose(to_zero, np.where(inside, 0, -STEP), atol=1e-6)


def test_the_bound_learns_as_in_pact():
    v = np.array([-2.0, 0.1, 0.7, 1.0, 1.4, 5.0], np.float32)
    fmt = Int(4, symmetric=False)

    def view(x, bound):
        scale, zero = bound[None] / 15, jnp.zeros(1)
        chosen = lambda *_: (scale, zero)  # noqa: E731
        return fake_quant(x[None], fmt, scale=chosen, gradient=to_the_bound)[0]

    grads = jax.vmap(jax.grad(view, (0, 1)), (0, None))
    to_x, to_bound = grads(jnp.asarray(v), jnp.float32(1.0))
    assert to_x.tolist() == [0, 1, 1, 1, 0, 0]
    np.testing.assert_allclose(to_bound, [0, 0, 0, 0, 1, 1], atol=1e-6)


@pytest.mark.parametrize("gradient", [through_scale, to_the_bound])
def test_of_signs_both_weights_and_scale_learn(gradient):
    v = np.array([-3.0, -0.4, 0.1, 0.8, 2.0], np.float32)
    to_x, to_scale, _ = with_scale(v, Int(1), gradient)
    if gradient is through_scale:
        np.testing.assert_array_equal(to_x, 1)
        np.testing.assert_array_equal(to_scale, np.sign(v))
    else:  # clipped where larger than the scale, which is 1
        np.testing.assert_array_equal(to_x, np.abs(v) <= 1)
        np.testing.assert_array_equal(to_scale, np.where(np.abs(v) <= 1, 0, np.sign(v)))


@pytest.mark.parametrize("sharpness", [0.5, 5.0, 12.0])
@pytest.mark.parametrize("zero_point", [None, 3])
def test_soft_is_the_slope_of_a_smooth_staircase(sharpness, zero_point):
    fmt = Int(4) if zero_point is None else Int(4, symmetric=False)
    v = np.array([-2.7, -1.1, -0.45, 0.3, 0.5, 1.9, 4.2], np.float32)

    def staircase(v):
        below = np.floor(v)
        rise = np.tanh(sharpness * (v - below - 0.5)) / np.tanh(sharpness / 2)
        return below + 0.5 + 0.5 * rise

    slope = (staircase(v + 1e-4) - staircase(np.float64(v) - 1e-4)) / 2e-4
    to_x, _, _ = with_scale(v, fmt, soft(sharpness), zero_point)
    np.testing.assert_allclose(to_x, slope, rtol=2e-3, atol=1e-4)


def test_soft_has_the_slope_of_the_levels_of_any_format():
    fmt = formats.Levels((-4.0, -1.0, 0.0, 0.5, 2.0))
    v, sharpness = np.array([-3.0, -0.3, 0.1, 1.9, 1.25], np.float32), 3.0
    low, high = np.float64([-4, -1, 0, 0.5, 0.5]), np.float64([-1, 0, 0.5, 2, 2])  # pyright: ignore[reportArgumentType]
    middle = (v - low) / (high - low) - 0.5
    slope = sharpness / np.cosh(sharpness * middle) ** 2 / (2 * np.tanh(sharpness / 2))
    to_x, _, _ = with_scale(v, fmt, soft(sharpness))
    np.testing.assert_allclose(to_x, slope, rtol=1e-4)
    wide, _, _ = with_scale(np.array([-9.0, 9.0], np.float32), fmt, soft(sharpness))
    assert not wide.any()


def test_soft_near_zero_sharpness_is_the_identity():
    to_x, _, _ = with_scale(np.array([-2.2, 0.4, 3.9], np.float32), Int(4), soft(1e-2))
    np.testing.assert_allclose(to_x, 1, atol=1e-3)
    with pytest.raises(ValueError, match="sharpness must be positive, got 0"):
        soft(0)


def test_polynomial_is_the_triangle_of_bi_real_net():
    v = np.array([-1.5, -0.999, -0.25, 0.0, 0.5, 0.75, 1.0, 2.0], np.float32)
    want = np.where(np.abs(v) < 1, 2 - 2 * np.abs(v), 0)
    to_x, _, _ = with_scale(v, Int(1), polynomial)
    np.testing.assert_allclose(to_x, want, atol=1e-6)
    unscaled = jax.grad(
        lambda x: fake_quant(x, Int(1), scale=unit, gradient=polynomial).sum()
    )
    np.testing.assert_allclose(unscaled(jnp.asarray(v)), want, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_the_largest_float16_does_not_become_nan(name):
    x = jnp.array([65000.0, -65000.0, 30000.0, 9000.0, 1.0], jnp.float16)
    view = fake_quant(x, Int(3), gradient=ALL[name])
    expected = fake_quant(x.astype(jnp.float32), Int(3)).astype(jnp.float16)
    np.testing.assert_array_equal(view, expected)
    grown = fake_quant(
        x,
        Int(2),
        scale=lambda *_: (jnp.full((1,), 40000.0), None),
        gradient=ALL[name],
    )
    assert not jnp.isnan(grown).any()


@pytest.mark.parametrize("fmt", [Int(1), Int(4)])
@pytest.mark.parametrize(
    "gradient", [straight_through, clipped, through_scale, soft(), polynomial]
)
def test_the_view_is_what_ships_at_the_end_of_the_range_of_half_floats(fmt, gradient):
    x = jnp.asarray([-6.5e4, 6.4e4, 5e4, -1e3], jnp.float16)
    view = fake_quant(x, fmt, gradient=gradient)
    np.testing.assert_array_equal(view, to_qarray(x, fmt).dense())
