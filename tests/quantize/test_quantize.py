# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import E2M1, Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.scales import absmax, two_level

BITS = [*range(1, 9), 16]


@hypothesis.given(
    bits=st.sampled_from(BITS[1:]),
    symmetric=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_error_is_at_most_half_a_step(bits, symmetric, seed):
    w = normal(16, 5, seed=seed)
    q = to_qarray(w, Int(bits, symmetric), scale_shape=(1, 5))
    # Rounding the zero point shifts an asymmetric grid by up to half a step more.
    bound = (0.5 if symmetric else 1.0) * q.scale * (1 + 1e-5) + 1e-6 * jnp.abs(w)
    assert (jnp.abs(w - q.dense()) <= bound).all()


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_the_gradient_is_the_identity_also_at_the_extremes(bits, symmetric):
    for seed in range(5):
        w = normal(8, 3, seed=seed)
        grad = jax.grad(lambda w: fake_quant(w, Int(bits, symmetric)).sum())(w)
        np.testing.assert_array_equal(grad, jnp.ones((8, 3)))


def test_a_clipping_scale_stops_the_gradient_where_it_clips():
    def half(weights, shape, fmt):
        scale, zero = absmax(weights, shape, fmt)
        return scale / 2, zero

    w = jnp.array([1.0, 0.4, -1.0, 0.1])
    grad = jax.grad(lambda w: fake_quant(w, Int(4), scale=half).sum())(w)
    assert grad.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_forward_mode_and_second_derivatives_work():
    w = normal(4, 3)

    def f(w):
        return jnp.sum(fake_quant(w, Int(4)) ** 2)

    _, tangent = jax.jvp(f, (w,), (jnp.ones_like(w),))
    np.testing.assert_allclose(tangent, 2 * fake_quant(w, Int(4)).sum(), rtol=1e-5)
    hvp = jax.jvp(jax.grad(f), (w,), (jnp.ones_like(w),))[1]
    np.testing.assert_allclose(hvp, 2 * jnp.ones_like(w))


def test_one_bit_is_the_sign_times_the_mean_magnitude_and_zeros_stay():
    w = jnp.array([[1.0], [-3.0], [0.0], [2.0]])
    view = fake_quant(w, Int(1), scale_shape=(1, 1))
    assert view.ravel().tolist() == [2.0, -2.0, 0.0, 2.0]


def test_tiles_of_zeros_have_a_scale():
    for symmetric in (True, False):
        q = to_qarray(jnp.zeros((4, 2)), Int(4, symmetric), scale_shape=(1, 2))
        assert (q.scale == 1).all() and not q.dense().any()


def test_unsigned_codes_never_wrap():
    w = jnp.linspace(-1, 3, 41)
    q = to_qarray(w, Int(8, symmetric=False))
    assert q.codes.dtype == jnp.uint8 and (jnp.diff(q.codes.astype(int)) >= 0).all()
    assert jnp.abs(q.dense() - w).max() <= q.scale.max()


def test_per_channel_axes_follow_the_framework_and_are_never_guessed():
    assert jc.PerChannel().scale_shape("layers/0/weight", (10, 4)) == (10, 1)
    assert jc.PerChannel(axes=jc.Axes(outputs=(0, -1))).scale_shape("w", (3, 4, 5)) == (
        3,
        1,
        5,
    )
    conv = {"Conv_0": {"kernel": jnp.ones((3, 3, 2, 4))}}
    with pytest.raises(ValueError) as error:
        jc.weight_quantization(bits=8).init(conv)
    assert "'Conv_0/kernel' has shape (3, 3, 2, 4)" in str(error.value)
    assert "Pass axes=" in str(error.value)
    named = jc.PerChannel(axes={"Conv_*/kernel": jc.Axes(outputs=-1)})
    q = jc.compress(jc.weight_quantization(bits=8, granularity=named), conv)
    assert q["Conv_0"]["kernel"].scale.shape == (1, 1, 1, 4)


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        (
            jc.PerChannel(axes=jc.Axes(outputs=5)),
            "'kernel' has shape .10, 4.: there is no axis 5",
        ),
        (
            jc.PerGroup(3),
            "group size must divide axis 0 of .10, 4., of length 10, got 3",
        ),
    ],
)
def test_bad_granularities_are_refused_by_name(granularity, message):
    c = jc.weight_quantization(bits=8, granularity=granularity)
    with pytest.raises(ValueError, match=message):
        c.init({"kernel": jnp.ones((10, 4))})


def test_bad_bits_and_groups():
    with pytest.raises(
        ValueError, match="bits must be an integer from 1 to 8, or 16; got 12"
    ):
        jc.weight_quantization(bits=12)
    with pytest.raises(ValueError, match="bits must be an integer .* got 4.0"):
        jc.weight_quantization(bits=4.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="1 or more weights"):
        jc.PerGroup(0)


def test_a_float_model_traced_first_changes_nothing():
    w = {"kernel": normal(4, 3)}
    x = jnp.ones((2, 4))
    c = jc.weight_quantization(bits=2)
    model = jax.jit(lambda p: x @ p["kernel"])
    first = model(w)
    state = c.init(w)
    quantized = jax.jit(lambda p: model(c.apply(p, state)))(w)
    np.testing.assert_array_equal(model(w), first)
    np.testing.assert_allclose(quantized, x @ c.apply(w, state)["kernel"], rtol=1e-6)
    assert (quantized != first).any()


def test_a_group_that_does_not_fit_falls_back_where_it_was_asked_to():
    params = {
        "a": {"kernel": normal(64, 4)},
        "b": {"kernel": normal(40, 4, seed=1)},
        "c": {"kernel": normal(6, 9, seed=2)},
    }
    groups = jc.PerGroup(64, otherwise=jc.PerGroup(8, otherwise=jc.PerChannel()))
    with pytest.warns(UserWarning) as caught:
        mixed = jc.compress(jc.weight_quantization(bits=4, granularity=groups), params)
    (warning,) = caught  # one, for all leaves, at the line above
    assert warning.filename == __file__
    said = str(warning.message)
    assert "'b/kernel' is quantized by PerGroup(size=8" in said
    assert "'c/kernel' is quantized by PerChannel" in said and "'a/kernel'" not in said
    assert [q["kernel"].scale.shape for q in mixed.values()] == [(1, 4), (5, 4), (1, 9)]
    alone = jc.weight_quantization(bits=4, granularity=jc.PerGroup(8), where="b/*")
    expected = jc.compress(alone, params)["b"]["kernel"]
    np.testing.assert_array_equal(mixed["b"]["kernel"].dense(), expected.dense())


def test_leaves_that_groups_fit_are_selected_and_the_rest_listed():
    params = {"a": {"kernel": jnp.ones((64, 4))}, "b": {"kernel": jnp.ones((40, 4))}}
    groups = jc.PerGroup(64)
    where = jc.prune.patterns.fits(groups)
    c = jc.weight_quantization(bits=4, granularity=groups, where=where)
    small = jc.compress(c, params)
    assert small["b"]["kernel"] is params["b"]["kernel"]
    assert small["a"]["kernel"].scale.shape == (1, 4)
    reasons = jc.prune.patterns.left_out(groups, params)
    assert (
        list(reasons) == ["b/kernel"] and "of length 40, got 64" in reasons["b/kernel"]
    )
    with pytest.raises(ValueError, match=r"otherwise=PerChannel\(\)"):
        jc.compress(jc.weight_quantization(bits=4, granularity=groups), params)
    with pytest.raises(TypeError, match="otherwise must be a granularity"):
        jc.PerGroup(64, otherwise=jc.PerChannel)  # pyright: ignore[reportArgumentType]


def halved(key, dtype):
    """Weights whose second row is half the largest of each column: 63.5 steps of int8."""
    w = jax.random.normal(key, (64, 16)).astype(dtype)
    largest = jnp.max(jnp.abs(w), axis=0).astype(dtype)
    return w.at[0].set(largest).at[1].set(largest / 2)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("shape", [(1, 16), (4, 16)])
def test_halves_of_a_step_are_rounded_alike_in_jit_and_eager(dtype, shape):
    def both(w):
        found = to_qarray(w, Int(8), scale_shape=shape)
        return fake_quant(w, Int(8), scale_shape=shape), found.codes, found.scale

    w = halved(jax.random.key(0), dtype)
    for eager, compiled in zip(both(w), jax.jit(both)(w), strict=True):
        np.testing.assert_array_equal(eager, compiled)


def test_scales_of_two_levels_have_the_same_bits_in_jit_and_eager():
    def choose(w):
        return [two_level(x[None], (1, 4), E2M1)[0] for x in w]

    w = normal(8, 16, seed=1)
    found = map(jax.tree.leaves, (choose(w), jax.jit(choose)(w)))
    for eager, compiled in zip(*found, strict=True):
        np.testing.assert_array_equal(eager, compiled)
