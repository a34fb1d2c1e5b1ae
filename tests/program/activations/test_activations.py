# SPDX-License-Identifier: Apache-2.0
"""The modes of a quantized function, and the grids that its values lie on."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from models import assert_same_bits, initialized, linen_transformer
from variants import marked

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, everywhere, operands_only
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.scales import (
    dynamic,
    minmax,
    moving_average,
    of_range,
    percentile,
)


class Cnn(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        def normed(x):
            x = nn.Conv(4, (3, 3), use_bias=False)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.5)(x)

        x = nn.max_pool(nn.relu(normed(x)), (2, 2), (2, 2))
        x = nn.relu(x + normed(x))
        return nn.Dense(3)(x.mean((1, 2)))


def cnn(variables, x):
    return Cnn().apply(variables, x)


def cnn_in_training(variables, x):
    return Cnn().apply(variables, x, True, mutable=["batch_stats"])


IMAGES = normal(4, 8, 8, 3)
CNN = initialized(Cnn(), IMAGES)
TRANSFORMER = linen_transformer()
MODELS = {
    "cnn": (cnn, CNN, IMAGES),
    "cnn in training": (cnn_in_training, CNN, IMAGES),
    # Weights that are large enough for attention to prefer something.
    "transformer": (
        TRANSFORMER.fn,
        jax.tree.map(lambda p: put(3 * np.asarray(p)), TRANSFORMER.params),
        *TRANSFORMER.args,
    ),
}
MATRICES = {name: normal(4, 4, seed=i) for i, name in enumerate("uw")}
X = normal(6, 4, seed=3)


def mlp(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["u"]


def way(bits, ranges=None, *, symmetric=False):
    ranges = minmax() if ranges is None else ranges
    return ActivationQuantizer(Int(bits, symmetric), ranges)


def calibrated(fn, policy, params, x):
    """The quantized function, and the ranges of some data."""
    quantized = jc.quantize_activations(fn, policy)
    start = quantized.init(params, x)
    return quantized, jax.jit(quantized.calibrate)(params, start, x)[1]


@pytest.mark.parametrize("name", MODELS)
def test_calibration_returns_the_bits_of_the_function(name):
    fn, params, x = MODELS[name]
    quantized = jc.quantize_activations(fn, everywhere())
    start = quantized.init(params, x)
    # Not under jit, which may fuse the two programs in two ways.
    out, ranges = quantized.calibrate(params, start, x)
    assert_same_bits(out, fn(params, x))
    assert jax.tree.map(jax.typeof, ranges) == jax.tree.map(jax.typeof, start)
    for seen in ranges.values():
        assert (seen.count == 1).all() and (seen.low <= seen.high).all()


@pytest.mark.parametrize("name", marked(["cnn", "transformer"], slow=["transformer"]))
def test_more_bits_are_closer(name):
    fn, params, x = MODELS[name]
    exact = fn(params, x)
    _, ranges = calibrated(fn, everywhere(way(8)), params, x)
    error = {}
    for bits in (4, 8, 16):  # the ranges are the same for all of them
        frozen = jc.quantize_activations(fn, everywhere(way(bits))).frozen
        out, _ = jax.jit(frozen)(params, ranges, x)
        error[bits] = float(jnp.abs(out - exact).max())
    assert error[8] < 0.05 * float(jnp.abs(exact).max())
    # A bit more halves the step; as errors do not add up alike, not quite the error.
    assert error[8] < error[4] / 2**2 and error[16] < error[8] / 2**6


@pytest.mark.parametrize("name", marked(MODELS, slow=["cnn in training"]))
def test_training_is_observing_and_then_rounding_to_what_was_seen(name):
    fn, params, x = MODELS[name]
    policy = everywhere(way(8, moving_average(0.5)))
    quantized, ranges = calibrated(fn, policy, params, x)
    larger = jax.tree.map(lambda p: 2 * p, params)
    out, moved = jax.jit(quantized.train)(larger, ranges, x)
    assert_same_bits((out, moved), jax.jit(quantized.frozen)(larger, moved, x))
    assert all((seen.count == 2).all() for seen in moved.values())
    products = [name for name in ranges if name.startswith("params/Conv_0")]
    assert all(moved[name].high > ranges[name].high for name in products)


def operands(fn, params, x):
    """What every product of a function reads, by its name."""
    known = jc.sites(fn, params, x)
    state = {
        site.name: [jnp.zeros((*site.layers, *s.shape)) for s in site.operands]
        for site in known
        if site.primitive != "gather"
    }

    def rule(site, op, operands, state):
        return op(*operands), None if state is None else list(operands)

    return jax.jit(jc.rewrite(fn, rule))(params, state, x)[1]


@pytest.mark.parametrize(
    ("name", "ranges", "symmetric"),
    [
        ("cnn", minmax(), True),
        pytest.param("cnn", percentile(), False, marks=pytest.mark.slow),
        pytest.param("transformer", minmax(), False, marks=pytest.mark.slow),
        ("transformer", dynamic(), False),
    ],
)
def test_all_that_products_read_lies_on_a_grid(name, ranges, symmetric):
    fn, params, x = MODELS[name]
    policy = everywhere(way(4, ranges, symmetric=symmetric))
    quantized, known = calibrated(fn, policy, params, x)
    frozen = lambda params, x: quantized.frozen(params, known, x)[0]  # noqa: E731
    read = operands(frozen, params, x)
    assert len(read) == (3 if name == "cnn" else 9)
    for site in jc.sites(frozen, params, x):
        both = read.get(site.name, [])
        data = [x for i, x in enumerate(both) if i != site.weight]
        for layer in np.ndindex(*site.layers):
            assert all(2 < np.unique(x[layer]).size <= 2**4 for x in data)


def test_a_rectifier_apart_from_its_product_stays_on_the_grid():
    def fn(params, x):
        y = x @ params["w"]
        return y, jnp.clip(y, -0.7, 0.7) @ params["u"]

    quantized, known = calibrated(fn, everywhere(way(4)), MATRICES, X)

    def frozen(params, x):
        return quantized.frozen(params, known, x)[0]

    name = "u/input" if "u/input" in known else "w/output"
    low, high, _ = known[name]
    scale, _ = of_range(low, high, Int(4, symmetric=False))
    codes = operands(frozen, MATRICES, X)["u"][0] / scale
    np.testing.assert_allclose(codes, jnp.round(codes), atol=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_stored_value_is_a_code_times_the_scale_of_its_range(symmetric):
    fmt = Int(6, symmetric)
    policy = {"u/output": ActivationQuantizer(fmt, minmax())}
    quantized, ranges = calibrated(mlp, policy, MATRICES, X)
    out, same = quantized.frozen(MATRICES, ranges, 3 * X)  # also beyond the range
    assert_same_bits(same, ranges)
    low, high, _ = ranges["u/output"]
    scale, zero_point = of_range(low, high, fmt)
    codes = out / scale + (0 if zero_point is None else zero_point)
    np.testing.assert_allclose(codes, jnp.round(codes), atol=1e-4)
    codes = jnp.round(codes)
    assert fmt.low <= codes.min() and codes.max() <= fmt.high
    assert codes.min() == fmt.low or codes.max() == fmt.high


def test_products_of_data_with_data_read_grids():
    def fn(params, x):
        return (x @ params["w"]) @ (x @ params["u"]).T

    def by_hand(x):
        a, b = (fake(fake(x) @ MATRICES[name]) for name in "wu")
        return a @ b.T

    def fake(x):
        return fake_quant(x, Int(3, symmetric=False))

    # Not the result: products of few codes often lie half way between two others.
    quantized, ranges = calibrated(fn, operands_only(way(3, dynamic())), MATRICES, X)
    out, _ = jax.jit(quantized.frozen)(MATRICES, ranges, X)
    np.testing.assert_allclose(out, by_hand(X), rtol=1e-5, atol=1e-5)


def test_rows_may_have_ranges_of_their_own():
    policy = operands_only(way(4, dynamic(-1)))
    x = X.at[0].multiply(1e3)
    fn = jc.quantize_activations(lambda params, x: x @ params["w"], policy)
    out, _ = fn.frozen(MATRICES, fn.init(MATRICES, x), x)
    view = fake_quant(x, Int(4, symmetric=False), scale_shape=(6, 1))
    np.testing.assert_allclose(out, view @ MATRICES["w"], rtol=1e-5, atol=1e-5)
    assert jnp.abs(view - x)[1:].max() < 0.3  # not lost in the grid of the large row


def test_ranges_that_saw_nothing_give_no_numbers():
    quantized = jc.quantize_activations(mlp)
    with pytest.warns(jc.program.RangeWarning, match="is NaN"):
        out, _ = quantized.frozen(MATRICES, quantized.init(MATRICES, X), X)
    assert jnp.isnan(out).all()


def test_ranges_are_made_from_shapes():
    quantized = jc.quantize_activations(cnn, everywhere())
    shapes = jax.eval_shape(lambda: (CNN, IMAGES))
    assert_same_bits(quantized.init(*shapes), quantized.init(CNN, IMAGES))


def test_sixteen_bit_floats_keep_their_dtype():
    params, x = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (MATRICES, X))
    quantized, ranges = calibrated(mlp, everywhere(way(8)), params, x)
    out, _ = quantized.frozen(params, ranges, x)
    exact = mlp(params, x).astype(jnp.float32)
    assert out.dtype == jnp.bfloat16
    assert jnp.abs(out - exact).max() < 0.05 * jnp.abs(exact).max()


@pytest.mark.parametrize("order", [1, -1])
def test_it_does_not_matter_which_is_traced_first(order):
    @jax.jit
    def model(params, x):
        return jax.vmap(jax.jit(lambda x: jnp.dot(x, params["w"])))(x)

    quantized = jc.quantize_activations(model, operands_only(way(2, dynamic())))
    ranges = quantized.init(MATRICES, X) if order < 0 else None

    def run_float():
        out = model(MATRICES, X)
        np.testing.assert_allclose(out, X @ MATRICES["w"], rtol=1e-5, atol=1e-6)

    def run_quantized():
        known = quantized.init(MATRICES, X) if ranges is None else ranges
        out, _ = jax.jit(quantized.frozen)(MATRICES, known, X)
        view = fake_quant(X, Int(2, symmetric=False))
        np.testing.assert_allclose(out, view @ MATRICES["w"], rtol=1e-5, atol=1e-6)

    jax.clear_caches()
    for run in (run_float, run_quantized)[::order] * 2:
        run()
