# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.scales import absmax, as_scale, entropy, held, mse, of_range

FORMATS = [
    Int(2),
    Int(3),
    Int(8),
    Int(3, narrow=False),
    Int(3, symmetric=False),
    formats.E2M1,
    formats.NF4,
    formats.Levels((-1.0, 0.0, 0.2, 0.37)),
]


def chosen(kept, x, fmt, shape):
    state = kept.observe(kept.init(shape, fmt), x, fmt)
    return as_scale(kept, state)


def error(x, fmt, scale, power=2.0):
    view = fake_quant(x, fmt, scale=scale)
    return (jnp.abs(view - x) ** power).sum(0)


def draw(kind, seed, shape=(48, 3)):
    key = jax.random.key(seed)
    if kind == "uniform":
        return jax.random.uniform(key, shape, minval=-1)
    if kind == "tail":
        return jax.random.t(key, 2.0, shape)
    if kind == "positive":
        return jnp.abs(jax.random.normal(key, shape))
    return jax.random.normal(key, shape)


@hypothesis.given(
    fmt=st.sampled_from(FORMATS),
    kind=st.sampled_from(["normal", "uniform", "tail", "positive"]),
    seed=st.integers(0, 99),
)
@examples(12)
def test_mse_is_never_worse_than_the_largest_magnitude(fmt, kind, seed):
    x = draw(kind, seed)
    found = error(x, fmt, chosen(mse(), x, fmt, (1, 3)))

    def full(values, shape, fmt):
        return absmax(values, (1, 3), fmt)

    assert (found <= error(x, fmt, full) * (1 + 1e-5) + 1e-12).all()


@pytest.mark.parametrize("fmt", [Int(4), Int(4, narrow=False), formats.NF4])
def test_mse_is_never_worse_of_many_tiles(fmt):
    x, shape = draw("normal", 0, (48, 200)), (1, 200)
    known = fake_quant(x, fmt, scale_shape=shape)
    found = error(x, fmt, chosen(mse(), x, fmt, shape))
    assert (found <= ((known - x) ** 2).sum(0) * (1 + 1e-5)).all()


@pytest.mark.parametrize("power", [2.4, pytest.param(2.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fmt", [Int(2), Int(4), formats.NF4, Int(3, False)])
def test_mse_is_nearly_the_best_of_a_fine_search(fmt, power):
    x = draw("normal", 1, (300, 1))
    found = error(x, fmt, chosen(mse(power=power), x, fmt, (1, 1)), power)[0]
    low = jnp.minimum(x.min(), 0) if not fmt.symmetric else -jnp.abs(x).max()
    high = jnp.maximum(x.max(), 0) if not fmt.symmetric else jnp.abs(x).max()

    def of_share(share):
        scale, zero = of_range(share * low[None, None], share * high[None, None], fmt)
        return error(x, fmt, lambda *_: (scale, zero), power)[0]

    best = jax.vmap(of_share)(jnp.linspace(0.02, 1, 400)).min()
    assert best <= found * (1 + 1e-5) and found <= 1.05 * best


@pytest.mark.parametrize("make", [mse, entropy])
def test_counted_values_give_nearly_the_range_of_the_values(make):
    fmt = Int(4)
    x = draw("tail", 3, (4000,))
    counted = chosen(make(), x, fmt, ())(x, (1,), fmt)[0]
    exact = chosen(make(), x, fmt, (1,))(x, (1,), fmt)[0]
    near = {"mse": 0.06, "entropy": 0.3}[make.__name__]
    np.testing.assert_allclose(counted, exact, rtol=near)  # pyright: ignore[reportArgumentType, reportCallIssue]
    # And what it is for is as good.
    one, other = (
        (
            (fake_quant(x, fmt, scale=lambda *_, s=s: (s.reshape(1), None)) - x) ** 2  # pyright: ignore[reportAttributeAccessIssue]
        ).sum()
        for s in (counted, exact)
    )
    if make is mse:
        np.testing.assert_allclose(one, other, rtol=0.02)


def test_batches_are_counted_together():
    fmt, kept = Int(4), mse()
    x = draw("normal", 4, (600,))
    whole = kept.observe(kept.init((), fmt), x, fmt)
    parts = kept.init((), fmt)
    for part in jnp.split(x, 3):
        parts = kept.observe(parts, part, fmt)
    np.testing.assert_array_equal(
        kept.read(parts, x, fmt)[0], kept.read(whole, x, fmt)[0]
    )
    assert jnp.isnan(kept.read(kept.init((), fmt), x, fmt)[0])  # pyright: ignore[reportArgumentType]
    spoiled = kept.observe(whole, jnp.array([jnp.nan]), fmt)
    assert jnp.isnan(kept.read(spoiled, x, fmt)[0])  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_entropy_clips_a_heavy_tail_and_keeps_a_uniform(shape):
    fmt = Int(8)
    uniform = draw("uniform", 5, (4000,))
    bound = 127 * chosen(entropy(), uniform, fmt, shape)(uniform, (1,), fmt)[0]  # pyright: ignore[reportOperatorIssue]
    assert bound > 0.93 * jnp.abs(uniform).max()
    tail = jnp.concatenate([draw("normal", 6, (4000,)), jnp.array([60.0, -70.0])])
    bound = 127 * chosen(entropy(), tail, fmt, shape)(tail, (1,), fmt)[0]  # pyright: ignore[reportOperatorIssue]
    assert 2 < bound < 30


@pytest.mark.parametrize("make", [mse, entropy])
def test_zeros_and_constants_have_a_range(make):
    for fmt in (Int(4), Int(4, False), formats.NF4, Int(1)):
        run = jax.jit(
            lambda x, fmt=fmt: to_qarray(x, fmt, scale=chosen(make(), x, fmt, (1, 2)))
        )
        for value in (0.0, 0.5, -3.0):
            x = np.full((6, 2), value, np.float32)
            q = run(x)
            scale = np.asarray(q.scale)
            assert (scale > 0).all() and np.isfinite(scale).all()
            np.testing.assert_allclose(q.dense(), x, rtol=0.05)


@pytest.mark.parametrize(
    "make", [mse, entropy, lambda every: held(absmax, every=every)]
)
def test_a_search_every_few_updates(make):
    c = jc.weight_quantization(bits=4, scale=make(every=3))
    params = {"kernel": draw("normal", 7, (16, 2))}
    state = c.init(params)
    view = c.apply(params, state)["kernel"]
    bounds = [float(jnp.abs(view).max())]
    for i in range(6):
        params = jax.tree.map(lambda p: 2 * p, params)
        params, state = jax.jit(c.update)(params, state)
        bounds.append(float(jnp.abs(c.apply(params, state)["kernel"]).max()))
        assert state["kernel"].scale.count == i + 2
    # Chosen in init, and when the third and the sixth array after it are seen.
    np.testing.assert_allclose(bounds, bounds[0] * np.array([1, 1, 1, 8, 8, 8, 64]))


def test_other_arguments_are_refused():
    for make in (mse, entropy, lambda every: held(absmax, every=every)):
        with pytest.raises(ValueError, match="every must be at least 1.*got 0"):
            make(every=0)
    with pytest.raises(ValueError, match="power must be positive, got 0"):
        mse(power=0)
