# SPDX-License-Identifier: Apache-2.0
"""Rounding at random, and learned rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bitwise import same, same_tree
from draws import normal
from jax.sharding import NamedSharding, PartitionSpec

import jaxcompress as jc
from jaxcompress import formats
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.rounding import learned, stochastic
from jaxcompress.quantize.scales import held, unit

KEY = jax.random.key(11)
FORMATS = [
    Int(1),
    pytest.param(Int(2), marks=pytest.mark.slow),
    Int(4),
    Int(4, False),
    formats.E2M1,
    pytest.param(formats.E4M3, marks=pytest.mark.slow),
    formats.NF4,
    pytest.param(formats.powers_of_two(3), marks=pytest.mark.slow),
]


def drawn(x, fmt, count=400):
    """The levels that single values are rounded to, many times."""
    rounding = stochastic(KEY)
    steps = jnp.broadcast_to(x, (count, *x.shape))
    return fmt.round(steps, rounding.read(rounding.init("w", steps.shape), steps.shape))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_random_rounding_has_the_value_as_its_mean(fmt):
    draw = np.random.default_rng(0).uniform(0.02, 0.98, 12)
    x = jnp.asarray(float(fmt.low) + (float(fmt.high) - float(fmt.low)) * draw)
    count = 400
    levels = np.asarray(drawn(x, fmt, count), np.float64)
    low, high = (np.asarray(fmt.round(x, f), np.float64) for f in (jnp.floor, jnp.ceil))
    assert ((levels == low) | (levels == high)).all()
    share = (np.asarray(x) - low) / np.maximum(high - low, 1e-30)
    deviation = (high - low) * (share * (1 - share) / count) ** 0.5
    assert (np.abs(levels.mean(0) - x) <= 5 * deviation + 1e-6).all()


@pytest.mark.parametrize("fmt", [*FORMATS, Int(8), Int(16), formats.F16], ids=str)
def test_what_is_on_the_grid_is_not_moved_at_random(fmt):
    if isinstance(fmt, Int):
        levels = jnp.linspace(float(fmt.low), float(fmt.high), 200).round()
    elif isinstance(fmt, formats.Levels):
        levels = jnp.asarray(fmt.values, jnp.float32)
    else:
        levels = fmt.round(jnp.linspace(fmt.low, fmt.high, 200))
    levels = levels[levels != 0] if fmt == Int(1) else levels
    got = drawn(levels, fmt, 300)
    np.testing.assert_array_equal(got, jnp.broadcast_to(levels, got.shape))


def test_draws_differ_by_leaf_and_update_and_are_the_same_in_view_and_file():
    w = normal(32, 8)
    params = {"a": {"kernel": w}, "b": {"kernel": w}}
    c = jc.weight_quantization(bits=3, rounding=stochastic(KEY))
    state = c.init(params)
    views = []
    for _ in range(3):
        view = c.apply(params, state)
        same_tree(c.apply(params, state), view)
        same_tree(jax.jit(c.apply)(params, state), view)
        same_tree(jc.dense(c.finalize(params, state)), view)
        assert (view["a"]["kernel"] != view["b"]["kernel"]).any()
        views.append(view["a"]["kernel"])
        params, state = c.update(params, state)
    for i in range(3):
        assert (views[i] != views[i - 1]).any()
    other = jc.weight_quantization(bits=3, rounding=stochastic(jax.random.key(12)))
    assert (other.apply(params, other.init(params))["a"]["kernel"] != views[0]).any()


def test_random_rounding_trains():
    x = normal(64, 8, seed=1)
    y = x @ normal(8, 2, seed=2)
    c = jc.weight_quantization(bits=4, rounding=stochastic(KEY))
    init, step = jc.train_step(
        lambda p, b: jnp.mean((b[0] @ p["kernel"] - b[1]) ** 2), optax.adam(0.1), c
    )
    state = init({"kernel": normal(8, 2, seed=3)})
    losses = []
    for _ in range(40):
        state, metrics = step(state, (x, y))
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.2 * losses[0]


def awkward(fmt):
    """Middles between levels, their neighbors, and what is lost beside them."""
    if isinstance(fmt, Int):
        levels = np.arange(float(fmt.low), float(fmt.high) + 1)
    elif isinstance(fmt, formats.Levels):
        levels = np.asarray(fmt.values)
    else:
        levels = np.unique(fmt.round(jnp.linspace(fmt.low, fmt.high, 400)))
    middles = np.float32((levels[1:] + levels[:-1]) / 2)
    around = [np.nextafter(middles, np.float32(end)) for end in (-np.inf, np.inf)]
    beyond = np.array(
        [levels[0] * 1.3, levels[-1] * 1.3, 1e-9, -1e-9, 0.3, -0.3], np.float32
    )
    return jnp.asarray(np.concatenate([middles, *around, beyond, levels[:40]]))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_learned_rounding_starts_at_the_nearest_to_the_bit(fmt):
    rounding = learned()
    x = awkward(fmt)
    to_integer = rounding.read(rounding.init("w", x.shape), x.shape)
    got = fake_quant(x, fmt, scale=unit, to_integer=to_integer)
    same(got, fake_quant(x, fmt, scale=unit))


@pytest.mark.parametrize("fmt", FORMATS, ids=str)
def test_the_gradient_of_learned_rounding_moves_decisions(fmt):
    w = normal(24, 6, seed=4)
    c = jc.weight_quantization(
        fmt=fmt, granularity=jc.PerTensor(), scale=held(unit), rounding=learned()
    )
    params = {"kernel": 0.7 * float(fmt.high) * w / jnp.abs(w).max()}
    start = c.init(params)
    first = c.apply(params, start)["kernel"]
    pull = jnp.where(jax.random.bernoulli(jax.random.key(5), 0.5, w.shape), 1.0, -1.0)

    def loss(view, batch):
        return jnp.sum(pull * view["kernel"])

    init, step = jc.train_step(loss, optax.sgd(0.0), c, learned_tx=optax.sign_sgd(0.5))
    state = init(params)
    for _ in range(8):
        state, _ = step(state, None)
    same_tree(state.params, params)
    view = c.apply(state.params, state.compression)["kernel"]
    moved = view - first
    # All go the way they are pulled, and none beyond the level beside.
    assert (moved * pull <= 0).all() and (moved != 0).any()
    v = params["kernel"]
    below, above = (fmt.round(v, f) for f in (jnp.floor, jnp.ceil))
    assert ((view == below) | (view == above)).all()
    assert (jnp.where(pull > 0, view == below, view == above)).all()
    same_tree(
        jc.dense(c.finalize(state.params, state.compression)),
        c.apply(state.params, state.compression),
    )


def test_learned_rounding_is_for_weights():
    way = jc.program.ActivationQuantizer(Int(4), rounding=learned())
    quantized = jc.quantize_activations(lambda p, x: x @ p["w"], way)
    with pytest.raises(
        ValueError, match="it is for weights only, got the activation 'w/input'"
    ):
        quantized.init({"w": jnp.eye(3)}, jnp.ones((2, 3)))


def test_activations_rounded_at_random_are_drawn_anew_while_they_are_observed():
    way = jc.program.ActivationQuantizer(Int(2), rounding=stochastic(KEY))
    quantized = jc.quantize_activations(lambda p, x: x @ p["w"], way)
    params, x = {"w": jnp.eye(4)}, normal(16, 4, seed=6)
    ranges = quantized.init(params, x)
    first, ranges = quantized.train(params, ranges, x)
    second, ranges = quantized.train(params, ranges, x)
    assert (first != second).any()
    frozen, after = quantized.frozen(params, ranges, x)
    same_tree(after, ranges)
    same(jax.jit(quantized.frozen)(params, ranges, x)[0], frozen)


@pytest.mark.parametrize("rounding", [stochastic(KEY), learned()])
@pytest.mark.parametrize("spec", [PartitionSpec("d"), PartitionSpec(None, "d")])
def test_sharded_weights_are_rounded_alike(rounding, spec):
    assert jax.device_count() == 4
    mesh = jax.make_mesh((4,), ("d",))
    params = {"kernel": normal(16, 8, seed=7)}
    c = jc.weight_quantization(bits=4, rounding=rounding)
    state = c.init(params)
    sharded = jax.device_put(params, NamedSharding(mesh, spec))
    spread = jax.jit(c.apply)(sharded, c.init(sharded))
    same_tree(jax.device_get(spread), jax.device_get(c.apply(params, state)))
