# SPDX-License-Identifier: Apache-2.0
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxcompress import distill

# Compiled whole: fast, and a test that they can be. Their doctests run without.
hint, cosine = jax.jit(distill.hint), jax.jit(distill.cosine)
attention_transfer = jax.jit(
    distill.attention_transfer, static_argnames=("channel_axis", "power")
)
LOSSES = {"hint": hint, "cosine": cosine, "attention_transfer": attention_transfer}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
SHAPE = (4, 6, 3)
leading = st.lists(st.integers(1, 4), min_size=0, max_size=3).map(tuple)


def features(seed, shape=SHAPE):
    return normal(*shape, seed=seed)


def wide(x):
    return np.asarray(x, np.float64)


@examples(8)
@hypothesis.given(leading=leading, widths=st.tuples(*[st.integers(1, 5)] * 2))
def test_hint_is_the_squared_error_behind_the_projector(leading, widths):
    s, t, projector = (
        features(i, shape)
        for i, shape in enumerate(
            ((*leading, widths[0]), (*leading, widths[1]), widths)
        )
    )
    expected = ((wide(s) @ wide(projector) - wide(t)) ** 2).mean(-1)
    got = hint(s, t, projector=projector)
    assert got.shape == leading
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@examples(8)
@hypothesis.given(leading=leading, widths=st.tuples(*[st.integers(1, 5)] * 2))
def test_cosine_is_one_minus_the_cosine(leading, widths):
    s, t, projector = (
        features(i, shape)
        for i, shape in enumerate(
            ((*leading, widths[0]), (*leading, widths[1]), widths)
        )
    )
    a, b = wide(s) @ wide(projector), wide(t)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    expected = 1 - (a * b).sum(-1) / lengths
    got = cosine(s, t, projector=projector)
    assert got.shape == leading
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-4)


@examples(8)
@hypothesis.given(
    positions=st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    channels=st.tuples(*[st.integers(1, 4)] * 2),
    power=st.sampled_from([1, 2, 3.5]),
)
def test_attention_transfer_is_the_authors_formula(positions, channels, power):
    s, t = (features(i, (3, *positions, c)) for i, c in enumerate(channels))

    def maps(x):
        q = (np.abs(wide(x)) ** power).sum(-1).reshape(3, -1)
        return q / np.linalg.norm(q, axis=1, keepdims=True)

    expected = ((maps(s) - maps(t)) ** 2).mean(1)
    got = attention_transfer(s, t, power=power)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-6)


@every_loss
def test_it_is_zero_for_equal_features_and_positive_otherwise(loss):
    s, t = features(0), features(1)
    np.testing.assert_allclose(loss(s, s), 0, atol=1e-6)
    assert (loss(s, t) > 1e-3).all()


def test_cosine_ignores_lengths():
    s, t = features(0), features(1)
    lengths = 10.0 ** jnp.arange(-12, 12).reshape(4, 6, 1)
    np.testing.assert_allclose(cosine(s * lengths, t / lengths), cosine(s, t), 1e-4)
    np.testing.assert_allclose(cosine(s, -s), 2, rtol=1e-6)


def test_attention_transfer_ignores_the_order_of_channels_and_their_signs():
    s, t = features(0), features(1)
    np.testing.assert_allclose(
        attention_transfer(-s[..., ::-1], 1e15 * t), attention_transfer(s, t), 1e-5
    )


def test_channels_may_lie_first():
    s, t = features(0, (2, 4, 4, 3)), features(1, (2, 4, 4, 5))
    first = [jnp.moveaxis(x, -1, 1) for x in (s, t)]
    np.testing.assert_array_equal(
        attention_transfer(*first, channel_axis=1), attention_transfer(s, t)
    )


@every_loss
def test_no_gradient_reaches_the_teacher(loss):
    assert not jax.grad(lambda t: loss(features(0), t).sum())(features(1)).any()


@pytest.mark.parametrize("loss", [hint, cosine])
def test_the_projector_is_trained(loss):
    s = features(0, (20, 3))
    t = s @ features(2, (3, 7))

    @jax.jit
    def descend(projector):
        grad = jax.grad(lambda p: loss(s, t, projector=p).mean())(projector)
        return projector - 0.3 * grad

    projector = features(3, (3, 7))
    before = loss(s, t, projector=projector).mean()
    for _ in range(20):
        projector = descend(projector)
    assert loss(s, t, projector=projector).mean() < 0.8 * before


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize("loss", [hint, cosine])
def test_positions_that_do_not_count_are_zero_whatever_they_hold(loss, bad):
    s, t, p = features(0, (4, 6, 2)), features(1), features(2, (2, 3))
    where = jnp.arange(24).reshape(4, 6) % 3 > 0
    holes = [jnp.where(where[..., None], x, bad) for x in (s, t)]

    def total(s, p):
        values = loss(s, holes[1], projector=p, where=where)
        return values.sum(), values

    grads, values = jax.grad(total, argnums=(0, 1), has_aux=True)(holes[0], p)
    np.testing.assert_array_equal(values[~where], 0)
    np.testing.assert_allclose(
        values[where], loss(s, t, projector=p)[where], rtol=1e-5, atol=1e-6
    )
    assert all(jnp.isfinite(g).all() for g in grads) and not grads[0][~where].any()


def test_padding_of_maps_is_in_none():
    s, t = features(0), features(1, (4, 6, 5))
    where = jnp.ones((4, 6), bool).at[:, 4:].set(False).at[3].set(False)
    holes = [jnp.where(where[..., None], x, jnp.nan) for x in (s, t)]

    def total(s):
        values = attention_transfer(s, holes[1], where=where)
        return values.sum(), values

    grad, values = jax.jit(jax.grad(total, has_aux=True))(holes[0])
    expected = attention_transfer(s[:3, :4], t[:3, :4])
    np.testing.assert_allclose(values, jnp.append(expected, 0.0), rtol=1e-5)
    assert jnp.isfinite(grad).all() and not grad[~where].any()
    examples = jnp.array([True, False, True, True])
    np.testing.assert_allclose(
        attention_transfer(s.at[1].set(jnp.nan), t, where=examples),
        jnp.where(examples, attention_transfer(s, t), 0),
        rtol=1e-6,
    )


@every_loss
def test_zeros_and_extremes_have_finite_gradients(loss):
    for scale in (0.0, 1e-30, 1e-15, 1e15):
        s = (scale * features(0)).at[0].set(0).at[1, 0].set(0)
        value, grad = jax.value_and_grad(lambda s: loss(s, s + features(1)).sum())(s)
        assert jnp.isfinite(value) and jnp.isfinite(grad).all()
    assert not jax.grad(lambda s: cosine(s, features(1)).sum())(jnp.zeros(SHAPE)).any()


@every_loss
def test_short_floats_are_computed_in_float32(loss):
    short = [1e4 * features(i).astype(jnp.bfloat16) for i in (0, 1)]
    values = loss(*short)
    assert values.dtype == jnp.float32
    expected = loss(*(x.astype(jnp.float32) for x in short))
    np.testing.assert_array_equal(values, expected)
    grad = jax.grad(lambda s: loss(s, short[1]).sum())(short[0])
    assert grad.dtype == jnp.bfloat16 and jnp.isfinite(grad.astype(jnp.float32)).all()


@every_loss
def test_gradients_agree_with_differences(loss):
    s, t, direction = features(0), features(1), features(2)

    @jax.jit
    def along(step):
        return loss(s + step * direction, t).sum()

    slope = jax.jvp(along, (0.0,), (1.0,))[1]
    differences = (along(1e-2) - along(-1e-2)) / 2e-2
    np.testing.assert_allclose(slope, differences, rtol=2e-2, atol=2e-3)
    np.testing.assert_allclose(slope, jax.grad(along)(0.0), rtol=1e-4)


@every_loss
def test_parts_of_a_batch_and_transforms_change_no_value(loss):
    s, t = features(0), features(1)
    parts = [loss(s[i : i + 2], t[i : i + 2]) for i in (0, 2)]
    np.testing.assert_allclose(jnp.concatenate(parts), loss(s, t), rtol=1e-5)
    halves = [x.reshape(2, 2, 6, 3) for x in (s, t)]
    np.testing.assert_allclose(jax.vmap(loss)(*halves), jnp.stack(parts), rtol=1e-5)
    with jax.disable_jit():
        np.testing.assert_allclose(loss(s, t), jnp.concatenate(parts), rtol=1e-5)


@every_loss
def test_sharded_over_positions_it_is_the_same(loss):
    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    pair = features(0, (4, 8, 3)), features(1, (4, 8, 3))
    for spec in (PartitionSpec("d"), PartitionSpec(None, "d")):
        spread = jax.device_put(pair, NamedSharding(mesh, spec))
        np.testing.assert_allclose(loss(*spread), loss(*pair), rtol=1e-5)


@pytest.mark.parametrize("loss", [hint, cosine])
@pytest.mark.parametrize(
    "shapes, options, text",
    [
        (
            ((4, 2), (4, 3)),
            {},
            r"widths, 2 and 3, need projector=.*\(2, 3\)",
        ),
        (
            ((4, 2), (4, 3)),
            {"projector": (3, 2)},
            r"projector must have shape \(2, 3\).*got \(3, 2\)",
        ),
        (
            ((4, 2), (5, 2)),
            {},
            r"same leading axes, got \(4, 2\).*\(5, 2\).*Pool",
        ),
        (
            ((4, 2), (4, 2)),
            {"where": (4, 1)},
            r"where must have shape \(4,\), .*got \(4, 1\)",
        ),
        (((), ()), {}, "must have the same leading axes"),
    ],
)
def test_shapes_that_do_not_fit_name_the_fix(loss, shapes, options, text):
    with pytest.raises(ValueError, match=text):
        loss(*map(jnp.ones, shapes), **{k: jnp.ones(v) for k, v in options.items()})


@pytest.mark.parametrize(
    "shapes, options, text",
    [
        (
            ((2, 4, 3), (2, 5, 3)),
            {},
            r"must have the same .*\(2, 4\).*\(2, 5\). Pool the larger",
        ),
        (
            ((2, 3), (2, 3)),
            {},
            r"student features must be \(batch, .*got \(2, 3\).*hint",
        ),
        (((2, 4, 3),) * 2, {"power": 0.5}, "power must be at least 1.*got 0.5"),
        (
            ((2, 4, 3),) * 2,
            {"channel_axis": 3},
            r"channel_axis must be an axis of.*got 3",
        ),
        (
            ((2, 4, 3),) * 2,
            {"channel_axis": 0},
            r"channel_axis must be .* after the batch axis, got 0",
        ),
        (
            ((2, 4, 3),) * 2,
            {"channel_axis": -3},
            r"channel_axis must be .* after the batch axis, got -3",
        ),
        (
            ((2, 4, 3),) * 2,
            {"where": jnp.ones(3)},
            r"where must have shape \(2,\).*\(2, 4\).*got \(3,\)",
        ),
    ],
)
def test_maps_that_do_not_fit_are_refused(shapes, options, text):
    with pytest.raises(ValueError, match=text):
        attention_transfer(*map(jnp.ones, shapes), **options)


def test_a_step_of_training_traces_once():
    traces = []

    @functools.partial(jax.jit, static_argnames="power")
    def loss(s, t, where, power=2):
        traces.append(power)
        return attention_transfer(s, t, power=power, where=where)

    for seed in range(3):
        loss(features(seed), features(9), jnp.arange(4) != seed)
    assert len(traces) == 1
