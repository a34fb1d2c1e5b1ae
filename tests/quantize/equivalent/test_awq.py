# SPDX-License-Identifier: Apache-2.0
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from examples import examples
from linked import CNN_LINKS, NETWORKS, close, cnn, cnn_params, compress

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.quantize import awq, fake_quant, quantize
from jaxcompress.quantize.equivalent import Link
from jaxcompress.quantize.scales import absmax

LINK = Link({"scale": 0}, {"q": 0, "k": 0})
ROWS = jc.PerChannel(axes=jc.Axes(outputs=1))


def fn(params, x):
    x = x * params["scale"][None]
    return x @ params["q"] + 0.5 * x @ params["k"]


def make(seed=0, outliers=True, dtype=jnp.float32):
    scale = jnp.ones(16)
    scale = scale.at[jnp.array([3, 9])].set(40.0) if outliers else scale
    params = {
        "scale": scale,
        "q": normal(16, 8, seed=seed + 1),
        "k": normal(16, 8, seed=seed),
    }
    return jax.tree.map(lambda a: a.astype(dtype), params), normal(
        64, 16, seed=seed + 2
    )


def gram_of(fn, params, x):
    return jc.observe(fn, params, [x], jc.program.statistics.gram())


def loss(params, moved, gram, fmt, granularity):
    """Sum over the layers of the squares of what rounding adds to their outputs."""
    total = 0.0
    for name in ("q", "k"):
        s = np.asarray(params["scale"] / moved["scale"], np.float64)
        shape = granularity.scale_shape(name, moved[name].shape)
        rounded = np.asarray(
            fake_quant(moved[name], fmt, scale_shape=shape), np.float64
        )
        change = rounded / s[:, None] - np.asarray(params[name], np.float64)
        total += np.sum(change * (np.asarray(gram[name].gram, np.float64) @ change))
    return total


@examples(4)
@hypothesis.given(
    seed=st.integers(0, 99),
    bits=st.sampled_from([2, 3, 4]),
    outliers=st.booleans(),
    granularity=st.sampled_from(
        [ROWS, jc.PerGroup(8, axes=jc.Axes(contraction=0)), jc.PerTensor()]
    ),
)
def test_it_is_never_worse_than_nearest(seed, bits, outliers, granularity):
    params, x = make(seed, outliers)
    gram = gram_of(fn, params, x)
    moved = compress(
        awq([LINK], Int(bits), granularity=granularity), params, stats=gram
    )
    nearest = loss(params, params, gram, Int(bits), granularity)
    found = loss(params, moved, gram, Int(bits), granularity)
    assert found <= nearest * (1 + 1e-4)
    if outliers and granularity is ROWS:
        assert found < nearest * 0.75
    close(fn(params, x), fn(moved, x))


@pytest.mark.parametrize("bits", [3, 4])
def test_alpha_is_the_best_of_the_grid(bits):
    params, x = make()
    gram = gram_of(fn, params, x)
    moved = compress(
        awq([LINK], Int(bits), granularity=ROWS, grid=10), params, stats=gram
    )
    inputs = np.asarray(x * params["scale"][None], np.float64)
    rms = np.sqrt((inputs**2).mean(0))
    losses, candidates = [], []
    for alpha in np.linspace(0, 1, 11):
        s = rms**alpha
        s = jnp.asarray(s / np.sqrt(s.max() * s.min()), jnp.float32)
        candidate = {"scale": params["scale"] / s}
        candidate |= {p: params[p] * s[:, None] for p in ("q", "k")}
        losses.append(loss(params, candidate, gram, Int(bits), ROWS))
        candidates.append(candidate)
    best = int(np.argmin(losses))
    assert 0 < best
    jax.tree.map(close, candidates[best], moved)


def test_it_lowers_the_error_of_the_network_it_was_made_for():
    params, x = make()
    int3 = jc.weight_quantization(
        bits=3, granularity=ROWS, where=lambda p, w: w.ndim == 2
    )
    chain = jc.chain(awq([LINK], Int(3), granularity=ROWS), int3)
    gram = gram_of(fn, params, x)
    errors = []
    for c in (int3, chain):
        new = jc.dense(compress(c, params, stats=gram))
        errors.append(float(jnp.linalg.norm(fn(new, x) - fn(params, x))))
    assert errors[1] < errors[0] / 2


def test_scales_with_a_state_are_those_of_the_quantizer():
    params, x = make()
    gram = gram_of(fn, params, x)
    moved = [
        compress(awq([LINK], Int(3), granularity=ROWS, scale=scale), params, stats=gram)
        for scale in (jc.quantize.scales.mse(), absmax)
    ]
    close(fn(params, x), fn(moved[0], x))

    def error(new):
        int3 = quantize(Int(3), granularity=ROWS, scale=jc.quantize.scales.mse())
        only = jc.masked(int3, lambda path, leaf: leaf.ndim == 2)
        return jnp.linalg.norm(fn(jc.dense(compress(only, new)), x) - fn(params, x))

    assert error(moved[0]) < error(params) / 2
    with pytest.raises(TypeError, match="scale must be a scale such as absmax"):
        awq([LINK], Int(3), granularity=ROWS, scale=0.1)  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_convolutions_stacks_and_heads():
    rows = jc.PerChannel(
        axes={
            "out": jc.Axes(outputs=2),
            "down/kernel": jc.Axes(outputs=(0, 2)),
            "*": jc.Axes(outputs=-1),
        }
    )
    for name in ("stacked", "attention"):
        net, make_params, links, shape = NETWORKS[name]
        params, x = make_params(), normal(*shape, seed=7)
        gram = gram_of(net, params, x)
        new = compress(awq(links, Int(3), granularity=rows), params, stats=gram)
        close(net(params, x), net(new, x))
    params, x = cnn_params(), normal(3, 4, 4, 2, seed=7)
    gram = gram_of(cnn, params, x)
    axes = jc.weight_axes(cnn, params, x)
    links = CNN_LINKS[1:]
    new = compress(awq(links, Int(3), granularity=rows, axes=axes), params, stats=gram)
    close(cnn(params, x), cnn(new, x))
    with pytest.raises(
        ValueError, match="'point/kernel' has shape .* Pass axes=:|contraction"
    ):
        conv_link = Link({"a": 0}, {"point/kernel": -2})
        wide = {**params, "a": jnp.ones(8)}
        wide["point"] = {"kernel": jnp.ones((3, 3, 8, 4))}
        known = {**gram, "a": None}
        known["point"] = {
            "kernel": jc.program.statistics.Gram(jnp.uint32(1), jnp.eye(72))
        }
        compress(awq([conv_link], Int(3), granularity=rows), wide, stats=known)


def test_channels_of_a_flattened_image_are_read_at_all_positions():
    """The dense layer's features are (position, channel); the loudest channel is scaled."""
    params = {"c": jnp.ones(4).at[2].set(50.0), "dense": normal(12, 6)}

    def net(params, x):
        x = x * params["c"].reshape(1, 1, 4)
        return x.reshape(len(x), -1) @ params["dense"]

    x, link = normal(32, 3, 4, seed=1), Link({"c": 0}, {"dense": 0})
    gram = gram_of(net, params, x)
    new = compress(awq([link], Int(3), granularity=ROWS), params, stats=gram)
    s = new["dense"] / params["dense"]
    close(s, jnp.tile(s[:4], (3, 1)))
    assert jnp.argmax(s[:4, 0]) == 2
    close(net(params, x), net(new, x))


def test_it_moves_in_the_updates_that_are_given_statistics():
    params, x = make()
    c = awq([LINK], Int(3), granularity=ROWS)
    update, state = jax.jit(c.update), c.init(params)
    same, state = update(params, state)
    jax.tree.map(np.testing.assert_array_equal, same, params)
    assert state.count == 0 and not state.restart.now
    moved, state = update(params, state, stats=gram_of(fn, params, x))
    assert state.count == 1 and state.restart.now
    eager, _ = c.update(params, c.init(params), stats=gram_of(fn, params, x))
    jax.tree.map(close, eager, moved)
    held, state = update(moved, state)
    jax.tree.map(np.testing.assert_array_equal, held, moved)
    assert state.count == 1 and not state.restart.now


def test_channels_that_are_never_read_are_left_alone():
    params, x = make()
    x = x.at[:, 5].set(0)
    params["q"] = params["q"].at[:, 2].set(0)
    gram = gram_of(fn, params, x)
    moved = compress(awq([LINK], Int(3), granularity=ROWS), params, stats=gram)
    np.testing.assert_array_equal(moved["q"][5], params["q"][5])
    np.testing.assert_array_equal(moved["scale"][5], params["scale"][5])
    assert (moved["q"][:, 2] == 0).all() and bool(jnp.all(jnp.isfinite(moved["q"])))
    nothing = jax.tree.map(jnp.zeros_like, gram)
    held = compress(awq([LINK], Int(3), granularity=ROWS), params, stats=nothing)
    jax.tree.map(np.testing.assert_array_equal, held, params)


def test_bf16():
    params, x = make(dtype=jnp.bfloat16)
    gram = gram_of(fn, params, x)
    moved = compress(awq([LINK], Int(3), granularity=ROWS), params, stats=gram)
    assert moved["q"].dtype == jnp.bfloat16
    close(fn(params, x), fn(moved, x), rtol=0.03)


@pytest.mark.slow  # `tests/test_laws.py` has it with other weights
def test_laws():
    params, x = make()
    extras = {"stats": gram_of(fn, params, x)}
    c = awq([LINK], Int(3), granularity=ROWS)
    jc.testing.check_compressor(c, params, extras=extras, rounding=1e-5)


def test_careless_use_is_told():
    params, x = make()
    with pytest.warns(
        UserWarning, match="nothing is rescaled: no update was given stats"
    ):
        jc.compress(awq([LINK], Int(3), granularity=ROWS), params)
    with pytest.raises(ValueError, match="grid must be at least 1 step, got 0"):
        awq([LINK], Int(3), granularity=ROWS, grid=0)
    with pytest.raises(
        ValueError, match="'q': the group size must divide axis 0 of .16, 8."
    ):
        awq(
            [LINK], Int(3), granularity=jc.PerGroup(5, axes=jc.Axes(contraction=0))
        ).init(params)
    seen = jc.observe(fn, params, [x], jc.program.statistics.max_magnitude())
    with pytest.raises(ValueError, match="stats= has a ArrayImpl there.*gram"):
        jc.compress(awq([LINK], Int(3), granularity=ROWS), params, stats=seen)
    wrong = {
        **gram_of(fn, params, x),
        "q": jc.program.statistics.Gram(jnp.uint32(1), jnp.eye(7)),
    }
    with pytest.raises(
        ValueError, match="'q' has shape .16, 8.*7 features|cannot be told"
    ):
        jc.compress(awq([LINK], Int(3), granularity=ROWS), params, stats=wrong)
