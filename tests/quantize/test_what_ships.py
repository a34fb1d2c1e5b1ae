# SPDX-License-Identifier: Apache-2.0
"""Whatever is combined: what is trained is what ships, to the bit."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import pytest
from bitwise import same, same_tree
from draws import normal
from examples import examples

import jaxcompress as jc
from jaxcompress import formats, quantize as q
from jaxcompress.formats import Int

ASYMMETRIC = [Int(1, False), Int(3, False), Int(8, False), Int(4, False, True)]
SYMMETRIC = [
    *(Int(b) for b in (1, 2, 3, 4, 5, 6, 7, 8, 16)),
    Int(4, narrow=False),
    *(formats.E5M2, formats.E4M3, formats.E3M2, formats.E2M3, formats.E2M1),
    *(formats.NF4, formats.powers_of_two(4), formats.additive_powers_of_two(4)),
    formats.Levels((-1.0, 0.0, 0.3, 0.5)),
    *(formats.BF16, formats.F16),
]
SHAPE = (3, 8, 6)
GRANULARITIES = {
    "tensor": jc.PerTensor(),
    "layers": jc.PerTensor(axes=jc.Axes(layers=0)),
    "channel": jc.PerChannel(axes=jc.Axes(outputs=(0, -1))),
    "group": jc.PerGroup(4, axes=jc.Axes(contraction=1)),
    "single": jc.PerGroup(1, axes=jc.Axes(contraction=1)),
}
ANY_SCALE = {
    "absmax": q.scales.absmax,
    "unit": q.scales.unit,
    "minmax": q.scales.minmax(),
    "moving_average": q.scales.moving_average(),
    "percentile": q.scales.percentile(0.9),
    "held": q.scales.held(q.scales.absmax, every=2),
    "dynamic": q.scales.dynamic(),
    "lsq": q.scales.lsq(),
    "lsq from absmax": q.scales.lsq(start=q.scales.absmax),
    "pact": q.scales.pact(),
    "mse": q.scales.mse(every=2),
    "entropy": q.scales.entropy(),
}
SYMMETRIC_SCALE = {
    "power_of_two": q.scales.power_of_two,
    "two_level": q.scales.two_level,
}
ASYMMETRIC_SCALE = {
    "lsq_plus": q.scales.lsq_plus(),
    "lsq_plus from": q.scales.lsq_plus(start=q.scales.absmax),
}
ROUNDINGS = {
    "nearest": None,
    "stochastic": q.rounding.stochastic(jax.random.key(7)),
    "learned": q.rounding.learned(),
}


@st.composite
def ways(draw):
    """Arguments of ``quantize``, with names that a failure can be read by."""
    symmetric = draw(st.booleans())
    fmt = draw(st.sampled_from(SYMMETRIC if symmetric else ASYMMETRIC))
    scales = ANY_SCALE | (SYMMETRIC_SCALE if symmetric else ASYMMETRIC_SCALE)
    if fmt == Int(2):
        scales = scales | {"mean_above": q.scales.mean_above()}
    return (
        fmt,
        draw(st.sampled_from(list(GRANULARITIES))),
        draw(st.sampled_from(list(scales))),
        draw(st.sampled_from(list(ROUNDINGS))),
    )


def compressor(way):
    fmt, granularity, scale, rounding = way
    known = ANY_SCALE | SYMMETRIC_SCALE | ASYMMETRIC_SCALE
    known = known | {"mean_above": q.scales.mean_above()}
    return q.quantize(
        fmt,
        granularity=GRANULARITIES[granularity],
        scale=known[scale],
        rounding=ROUNDINGS[rounding],
    )


def weights(seed, dtype, size):
    key = jax.random.key(seed)
    w = (size * jax.random.normal(key, SHAPE)).astype(dtype)
    pruned = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.2, SHAPE)
    # Zeros among others, and a channel of nothing else.
    return {"kernel": jnp.where(pruned, 0, w).at[:, :, 2].set(0)}


def after_an_update(c, params):
    state = c.init(params)
    moved = jax.tree.map(lambda p: (p * 1.25).astype(p.dtype), params)
    return c.update(moved, state)


@hypothesis.given(
    way=ways(),
    dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    size=st.sampled_from([1e-3, 1.0, 300.0]),
    seed=st.integers(0, 99),
    compiled=st.integers(0, 3),
)
@examples(40)
def test_what_is_trained_is_what_ships(
    tmp_path_factory, way, dtype, size, seed, compiled
):
    c = compressor(way)
    params, state = after_an_update(c, weights(seed, dtype, size))
    view = c.apply(params, state)
    shipped = c.finalize(params, state)
    same_tree(jc.dense(shipped), view)
    assert jnp.isfinite(view["kernel"]).all()
    assert not view["kernel"][params["kernel"] == 0].any()
    packed = jc.pack_codes(shipped)
    same_tree(jc.dense(packed), view)
    if compiled == 0:
        same_tree(jax.jit(c.apply)(params, state), view)
        same_tree(jax.jit(jc.dense)(packed), view)
    if compiled == 1:
        path = tmp_path_factory.mktemp("file") / "weights"
        for tree in (shipped, packed):
            jc.save(path, tree)
            same_tree(jc.load(path), tree)


@pytest.mark.parametrize(
    ("fmt", "scale"),
    [
        (formats.E2M1, q.scales.two_level),
        pytest.param(formats.E2M1, q.scales.power_of_two, marks=pytest.mark.slow),
        pytest.param(formats.E4M3, q.scales.absmax, marks=pytest.mark.slow),
        (formats.NF4, q.scales.absmax),
        pytest.param(Int(8), q.scales.power_of_two, marks=pytest.mark.slow),
        (Int(3, False), q.scales.lsq_plus()),
        pytest.param(Int(3, False), q.scales.pact(), marks=pytest.mark.slow),
        (Int(3), q.scales.lsq()),
        pytest.param(Int(3), q.scales.percentile(0.9), marks=pytest.mark.slow),
        (Int(3), q.scales.mse()),
    ],
)
def test_jit_gives_the_same_bits_of_many_weights(fmt, scale):
    c = q.quantize(fmt, granularity=jc.PerGroup(16), scale=scale)
    draw = normal(512, 16, seed=3)
    params = {"kernel": draw * jnp.exp(2 * draw[:, :1])}
    state = c.init(params)
    view = c.apply(params, state)
    same_tree(jax.jit(c.apply)(params, state), view)
    shipped = jax.jit(c.finalize)(params, state)
    same_tree(jc.dense(shipped), view)
    same_tree(shipped, c.finalize(params, state))


@pytest.mark.parametrize("fmt", [formats.BF16, formats.F16])
@pytest.mark.parametrize(
    "scale", ["absmax", "unit", "mse", "minmax", "held", "pact", "lsq"]
)
def test_a_cast_has_the_scale_one(fmt, scale):
    w = normal(6, 4)
    c = jc.weight_quantization(fmt=fmt, scale=ANY_SCALE[scale])
    shipped = jc.compress(c, {"kernel": w})["kernel"]
    assert (shipped.scale == 1).all()
    same(shipped.dense(), w.astype(fmt.name).astype(jnp.float32))


@pytest.mark.slow  # `tests/test_laws.py` has each of them with other weights
def test_the_laws_of_compressors_hold():
    params = {"kernel": normal(16, 8)}
    for scale, rounding in (
        (q.scales.lsq(), None),
        (q.scales.mse(every=2), q.rounding.learned()),
    ):
        c = jc.weight_quantization(bits=3, scale=scale, rounding=rounding)
        jc.testing.check_compressor(c, params, rounding=1e-5)


def test_a_range_of_single_weights():
    w = normal(1, 5)
    for scale in (
        q.scales.percentile(0.9),
        q.scales.mse(),
        q.scales.minmax(),
        q.scales.absmax,
    ):
        c = jc.weight_quantization(bits=8, scale=scale)
        view = jax.jit(lambda p, c=c: c.apply(p, c.init(p)))({"kernel": w})["kernel"]
        assert jnp.allclose(view, w, rtol=1e-6)
        same(jc.compress(c, {"kernel": w})["kernel"].dense().shape, w.shape)
