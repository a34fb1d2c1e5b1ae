# SPDX-License-Identifier: Apache-2.0
"""What a packed tree computes when its products run on integers."""

import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from models import always, filled

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer
from jaxcompress.quantize.scales import Range, absmax, minmax, of_range

X = normal(10, 24, seed=99)
CHAIN = (24, 16, 12, 4)


def plain(params, x):
    for i, layer in enumerate(params):
        x = jax.nn.relu(x) if i else x
        x = x @ layer["kernel"] + jnp.broadcast_to(layer["bias"], (10, CHAIN[i + 1]))
    return x


PLAIN = [
    {"kernel": normal(n, m, seed=i), "bias": normal(m, seed=9 + i)}
    for i, (n, m) in enumerate(zip(CHAIN[:-1], CHAIN[1:], strict=True))
]


class Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i, features in enumerate(CHAIN[1:]):
            x = nn.Dense(features)(nn.relu(x) if i else x)
        return x


class Equinox(eqx.Module):
    layers: list[eqx.nn.Linear]

    def __init__(self, key):
        pairs = zip(CHAIN[:-1], CHAIN[1:], strict=True)
        self.layers = [eqx.nn.Linear(n, m, key=key) for n, m in pairs]

    def __call__(self, x):
        for i, layer in enumerate(self.layers):
            x = layer(jax.nn.relu(x) if i else x)
        return x


LINEN = filled(jax.eval_shape(lambda: Linen().init(jax.random.key(0), X)))
EQUINOX, STATIC = eqx.partition(
    filled(eqx.filter_eval_shape(Equinox, jax.random.key(0))), eqx.is_array
)
# Of each network: a function, its parameters, and its layers as (weight, bias).
CHAINS = {
    "plain": (plain, PLAIN, lambda p: [(q["kernel"], q["bias"]) for q in p]),
    "linen": (
        lambda p, x: Linen().apply(p, x),
        LINEN,
        lambda p: [
            (q["kernel"], q["bias"])
            for q in (p["params"][f"Dense_{i}"] for i in range(3))
        ],
    ),
    "equinox": (
        lambda p, x: jax.vmap(eqx.combine(p, STATIC))(x),
        EQUINOX,
        lambda p: [(q.weight.T, q.bias) for q in p.layers],
    ),
    "equinox, one example at a time": (
        lambda p, x: lax.map(eqx.combine(p, STATIC), x),
        EQUINOX,
        lambda p: [(q.weight.T, q.bias) for q in p.layers],
    ),
}


def products(fn, *args):
    """Dtypes of the operands and the result of every matrix product in a program."""
    text = jax.jit(fn).lower(*args).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    return {tuple(re.findall(r"tensor<(?:\d+x)*(\w+)>", line)) for line in lines}


def rounding_error(layers, x):
    """The most that rounding every row to 8 bits can change: half a step at each input.

    A row's step is its largest magnitude over 127, and the rows themselves are off by
    what came before. A ReLU does not widen an error.
    """
    h, error = np.asarray(x, np.float64), np.zeros(x.shape)
    for i, (w, b) in enumerate(layers):
        h = np.maximum(h, 0) if i else h
        step = (abs(h) + error).max(1, keepdims=True) / 127
        error = (error + step / 2) @ abs(np.asarray(w, np.float64))
        h = h @ np.asarray(w, np.float64) + np.asarray(b)[None]
    return h, error


@pytest.mark.parametrize(
    ("name", "symmetric"),
    [*zip(CHAINS, [True, False, False, True], strict=True)],
)
def test_it_is_off_by_the_rounding_of_the_inputs_alone(name, symmetric):
    fn, params, layers = CHAINS[name]
    packed = jc.compress(jc.weight_quantization(bits=6, symmetric=symmetric), params)
    execution = jc.execute(fn, pays=always)
    assert all(step.integers for step in execution.plan(packed, X).steps)
    out = jax.jit(execution.run)(packed, X)
    exact, error = rounding_error(layers(jc.dense(packed)), X)
    assert (abs(out - exact) <= error + 1e-5 * abs(exact).max()).all()
    assert 0 < abs(out - exact).max() and error.max() < abs(exact).max()


def dyadic(weights, shape, fmt):
    """The next power of two: products and sums of such grids are exact in float32."""
    scale, zero_point = absmax(weights, shape, fmt)
    _, exponent = jnp.frexp(scale)
    return jnp.ldexp(jnp.ones_like(scale), exponent), zero_point


def dyadic_range(seen, fmt):
    """A range around what was seen whose steps are a power of two."""
    size = float(jnp.maximum(-seen.low, seen.high))
    step = 2.0 ** np.ceil(np.log2(size / 100))
    low, high = (-127, 127) if fmt.symmetric else (-128, 127)
    known = Range(jnp.float32(step * low), jnp.float32(step * high), seen.count)
    assert of_range(known.low, known.high, fmt)[0] == step
    return known


def calibrated(fn, policy, params, *args):
    quantized = jc.quantize_activations(fn, policy)
    start = quantized.init(params, *args)
    return quantized, jax.jit(quantized.calibrate)(params, start, *args)[1]


@pytest.mark.parametrize(
    ("name", "weights", "inputs"),
    [
        ("plain", True, True),
        ("plain", True, False),
        ("plain", False, True),
        ("plain", False, False),
        ("equinox", False, False),
    ],
)
def test_with_ranges_it_has_the_bits_of_the_frozen_mode_where_floats_are_exact(
    name, weights, inputs
):
    fn, params, _ = CHAINS[name]
    policy = ActivationQuantizer(Int(8, inputs), minmax())
    packed = jc.compress(
        jc.weight_quantization(bits=7, symmetric=weights, scale=dyadic), params
    )
    quantized, ranges = calibrated(fn, policy, jc.dense(packed), X)
    ranges = {k: dyadic_range(r, policy.fmt) for k, r in ranges.items()}
    run = jax.jit(jc.execute(fn, policy, pays=always).run)
    out = run(packed, X, ranges=ranges)
    expected, _ = jax.jit(quantized.frozen)(jc.dense(packed), ranges, X)
    np.testing.assert_array_equal(out, expected)
    assert len(np.unique(out)) > 20  # and these are no constants


def test_a_program_has_integer_products_and_neither_float_ones_nor_dense_weights():
    packed = jc.compress(jc.weight_quantization(bits=8), PLAIN)
    run = jc.execute(plain, pays=always).run
    assert products(plain, PLAIN, X) == {("f32", "f32", "f32")}
    assert products(run, packed, X) == {("i8", "i8", "i32")}
    compiled = str(jax.jit(run).lower(packed, X).compile().as_text())
    for n, m in zip(CHAIN[:-1], CHAIN[1:], strict=True):
        assert f" s32[10,{m}]{{1,0}} dot(" in compiled
        assert f"f32[{n},{m}]" not in compiled


def test_models_are_mapped_and_looped_over_like_any_arrays():
    make = jc.weight_quantization(bits=8)
    trees = [
        jc.compress(make, jax.tree.map(lambda x, n=n: x + 0.1 * n, PLAIN))
        for n in range(3)
    ]
    stack = jax.tree.map(lambda *xs: jnp.stack(xs), *trees)
    run = jc.execute(plain, pays=always).run
    expected = [jax.jit(run)(tree, X) for tree in trees]
    mapped = jax.jit(jax.vmap(run, (0, None)))(stack, X)
    np.testing.assert_allclose(mapped, jnp.stack(expected), rtol=1e-5, atol=1e-4)

    @jax.jit
    def looped(stack):
        return lax.scan(lambda _, tree: (0, run(tree, X)), 0, stack)[1]

    np.testing.assert_allclose(looped(stack), mapped, rtol=1e-5, atol=1e-4)


def test_networks_of_bfloat16_stay_in_it():
    params, x = jax.tree.map(lambda x: x.astype(jnp.bfloat16), (PLAIN, X))
    packed = jc.compress(jc.weight_quantization(bits=8), params)
    policy = ActivationQuantizer(scale=minmax())
    _, ranges = calibrated(plain, policy, jc.dense(packed), x)
    exact = plain(jc.dense(packed), x).astype(jnp.float32)
    for how, known in [(None, None), (policy, ranges)]:
        run = jax.jit(jc.execute(plain, how, pays=always).run)
        out = run(packed, x, ranges=known)
        assert out.dtype == jnp.bfloat16
        # Three layers of 8 bits, on floats that have 8 bits themselves.
        assert abs(out - exact).max() < 0.05 * abs(exact).max()


def test_what_was_saved_and_loaded_executes_alike(tmp_path):
    packed = jc.compress(jc.weight_quantization(bits=4, symmetric=False), PLAIN)
    jc.save(tmp_path / "model.safetensors", packed)
    loaded = jc.load(tmp_path / "model.safetensors", like=packed)
    run = jax.jit(jc.execute(plain, pays=always).run)
    np.testing.assert_array_equal(run(loaded, X), run(packed, X))


def test_sharded_rows_and_outputs_give_what_one_device_gives():
    def fn(params, x):
        return x @ params["kernel"]

    packed = jc.compress(jc.weight_quantization(bits=8), {"kernel": normal(24, 8)})
    mesh = jax.make_mesh((2, 2), ("rows", "outputs"), axis_types=(AxisType.Auto,) * 2)
    columns = NamedSharding(mesh, PartitionSpec(None, "outputs"))
    rows = NamedSharding(mesh, PartitionSpec("rows"))
    run, x = jax.jit(jc.execute(fn, pays=always).run), normal(16, 24, seed=1)
    out = run(jax.device_put(packed, columns), jax.device_put(x, rows))
    np.testing.assert_array_equal(out, run(packed, x))
    assert len(out.sharding.device_set) == 4
