# SPDX-License-Identifier: Apache-2.0
"""Arguments that are not activations: masks of attention, and the state of norms."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from models import initialized

import jaxcompress as jc
from jaxcompress.program import ActivationQuantizer, everywhere
from jaxcompress.quantize.scales import minmax

PARAMS = {name: normal(4, 4, seed=i) for i, name in enumerate("qkvo")}
STACKED = {n: put(np.stack([w, w[::-1]])) for n, w in PARAMS.items()}
X = normal(2, 3, 4, seed=9)
SEEN = put(np.tril(np.ones((3, 3), bool))[None], bool)


def attention(params, x, masked):
    q, k, v = (x @ params[name] for name in "qkv")
    weights = jax.nn.softmax(masked(jnp.einsum("btd,bsd->bts", q, k) / 2))
    return x + jnp.einsum("bts,bsd->btd", weights, v) @ params["o"]


def in_layers(params, x, masked):
    def layer(x, params):
        return attention(params, x, masked), None

    return jax.lax.scan(layer, x, params)[0]


BIAS = put(np.where(SEEN, 0.0, -1e9))
# How a mask is given, and the same mask from inside of the function.
MASKS = {
    "a bias": (lambda s, m: s + m, BIAS),
    "one per head": (lambda s, m: m[0] + s, BIAS[None]),
    "as a number": (lambda s, m: s + (1 - m) * -1e9, 1.0 * SEEN),
    "two": (lambda s, m: s + (m[0] + m[1]), jnp.stack([BIAS, 0 * BIAS])),
    "multiplied": (lambda s, m: s * m - 1e9 * (1 - m), 1.0 * SEEN),
    "compared": (lambda s, m: jnp.where(m > 0.5, s, -1e9), 1.0 * SEEN),
    "filled in": (lambda s, m: jnp.where(m < 0, m, s), BIAS),
    "looked up": (lambda s, m: s + jnp.take(m, jnp.array([0]), 0), BIAS),
    "padded": (lambda s, m: s + jnp.pad(m, ((0, 0), (0, 0), (0, 1))), BIAS[..., :2]),
    "with learned places": (lambda s, m: s + (m + PARAMS["q"][None, :3, :3]), BIAS),
    "by hand": (lambda s, m: s - m, -BIAS),
}


def ranges_of(fn, params, *args):
    policy = everywhere(ActivationQuantizer(scale=minmax()))
    quantized = jc.quantize_activations(fn, policy)
    ranges = quantized.init(params, *args)
    out, ranges = jax.jit(quantized.calibrate)(params, ranges, *args)
    rounded, _ = jax.jit(quantized.frozen)(params, ranges, *args)
    return ranges, jnp.linalg.norm(rounded - out) / jnp.linalg.norm(out)


def within(ranges):
    return all(jnp.all(jnp.abs(jnp.array(r[:2])) < 1e4) for r in ranges.values())


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_no_activation(name):
    use, mask = MASKS[name]

    def given(params, x, mask):
        return attention(params, x, lambda s: use(s, mask))

    points = jc.quantize_activations(given, everywhere()).points(PARAMS, X, mask)
    inside = jc.quantize_activations(
        lambda params, x: attention(params, x, lambda s: jnp.where(SEEN, s, -1e9)),
        everywhere(),
    ).points(PARAMS, X)
    assert set(points) == set(inside)


@pytest.mark.slow
def test_masks_in_layers_keep_ranges_small():
    def given(params, x, mask):
        return in_layers(params, x, lambda s: s + mask)

    ranges, error = ranges_of(given, STACKED, X, BIAS)
    assert "input/1" not in ranges and within(ranges) and error < 0.05


def test_a_mask_that_a_loop_carries():
    def given(params, x, mask):
        def step(carry):
            i, x, mask = carry
            return i + 1, attention(params, x, lambda s: s + mask), mask

        return jax.lax.while_loop(lambda c: c[0] < 2, step, (0, x, mask))[1]

    ranges, error = ranges_of(given, PARAMS, X, BIAS)
    assert "input/1" not in ranges and within(ranges) and error < 0.05


def test_data_that_a_loop_carries_is_data():
    def given(params, x, y):
        def layer(carry, _):
            x, y = carry
            return (attention(params, x, lambda s: s + 0 * y[:, :1, :3]), y), None

        x, y = jax.lax.scan(layer, (x, y), None, length=2)[0]
        return x + y @ params["q"]

    assert "input/1" in jc.quantize_activations(given, everywhere()).points(
        PARAMS, X, 2 * X
    )


def test_a_mask_that_is_also_data_does_not_widen_the_scores():
    def pooled(params, x, mask):
        keep = (1 - mask[:, None, :]) * -1e9
        return attention(params, x, lambda s: s + keep) * mask[..., None]

    mask = jnp.array([[1.0, 1, 0], [1, 1, 1]])
    ranges, error = ranges_of(pooled, PARAMS, X, mask)
    assert "input/1" in ranges and within(ranges) and error < 0.05


def test_a_constant_mask_is_added_after_the_scores_are_stored():
    def causal(params, x):
        place = params["o"][None, :3, :3]
        return attention(params, x, lambda s: s + BIAS) + attention(
            params, x, lambda s: s + (BIAS + place)
        )

    ranges, error = ranges_of(causal, PARAMS, X)
    assert within(ranges) and error < 0.05


def test_data_that_is_added_elsewhere_is_data():
    def fn(params, x, y):
        return jax.nn.relu(x @ params["q"] + y) @ params["k"]

    assert "input/1" in jc.quantize_activations(fn, everywhere()).points(
        PARAMS, X, 2 * X
    )


class Normed(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def normed(x, **options):
            return nn.BatchNorm(use_running_average=not train, **options)(x)

        x = nn.relu(normed(nn.Conv(4, (3, 3))(normed(x))))
        y = normed(nn.Conv(4, (3, 3), use_bias=False)(x), use_scale=False)
        return nn.Dense(3)(nn.relu(x + y).mean((1, 2)))


IMAGES = normal(4, 6, 6, 3)
VARIABLES = initialized(Normed(), IMAGES)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("train", [False, True])
def test_the_state_of_norms_is_state_wherever_it_is_given(train, batch):
    def fn(variables, x):
        mutable = ["batch_stats"] if train else False
        return Normed().apply(variables, x, train, mutable=mutable)

    def apart(params, x, stats):
        return fn({"params": params, "batch_stats": stats}, x)

    params, stats = VARIABLES["params"], VARIABLES["batch_stats"]
    x = IMAGES[:batch]
    together = jc.quantize_activations(fn, everywhere()).points(VARIABLES, x)
    given = jc.quantize_activations(apart, everywhere()).points(params, x, stats)
    assert set(given) == {name.removeprefix("params/") for name in together}


def test_what_may_be_state_is_told_by_name():
    def fn(params, x, vector):
        return (x @ params["q"] + vector[None, None]) + (vector @ params["k"])[
            None, None
        ]

    args = X, jnp.arange(4.0)
    quantized = jc.quantize_activations(fn, everywhere())
    assert "input/1" in quantized.points(PARAMS, *args)
    ranges = quantized.init(PARAMS, *args)
    with pytest.warns(jc.program.ArgumentWarning, match="'input/1': the function uses"):
        quantized.calibrate(PARAMS, ranges, *args)


def test_vectors_of_an_example_are_data():
    def film(params, x, scale, targets):
        hidden = (x @ params["q"]) * scale[:, None, :]
        return (hidden.mean((1, 2))[:, None] - targets[:, None]) * hidden[:, 0]

    points = jc.quantize_activations(film, everywhere()).points(
        PARAMS, X, X[:, 0], X[:, 0, 0]
    )
    assert {"input/0", "input/1", "input/2"} <= set(points)


def test_a_sentinel_among_activations_is_told_by_name():
    def fn(params, x):
        return jnp.where(jnp.arange(4) > 2, -1e30, jax.nn.relu(x)) @ params["q"]

    quantized = jc.quantize_activations(fn, {"q/input": ActivationQuantizer()})
    run = jax.jit(quantized.calibrate)
    _, ranges = run(PARAMS, quantized.init(PARAMS, X), X)
    with pytest.warns(jc.program.RangeWarning, match="'q/input' reaches 1.0e.30"):
        quantized.frozen(PARAMS, ranges, X)


@pytest.mark.parametrize("scale", [1e-6, 1, 1e6])
def test_ranges_of_honest_values_are_not_warned_about(scale):
    def fn(params, x):
        peaked = jax.nn.softmax(20 * (x @ params["q"]))
        return (peaked * scale) @ params["k"]

    quantized = jc.quantize_activations(fn, everywhere())
    ranges = quantized.init(PARAMS, scale * X)
    _, ranges = quantized.calibrate(PARAMS, ranges, scale * X)
    quantized.frozen(PARAMS, ranges, scale * X)


def test_a_range_of_no_data_or_of_nan_is_told_by_name():
    def fn(params, x):
        return x @ params["w"]

    params, x = {"w": jnp.ones((4, 2))}, jnp.ones((3, 4))
    quantized = jc.quantize_activations(fn, everywhere())
    never = quantized.init(params, x)
    bad = x.at[0, 0].set(jnp.nan)
    for run, value in ((quantized.calibrate, bad), (quantized.frozen, x)):
        with pytest.warns(jc.program.RangeWarning, match="is NaN") as told:
            run(params, never, value)
        assert any("the range of 'input/0' is NaN" in str(w.message) for w in told)
