# SPDX-License-Identifier: Apache-2.0
"""Mistakes that are easily made: each is named, and none gives wrong numbers in silence."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bitwise import same
from draws import normal

import jaxcompress as jc
from jaxcompress import formats, quantize
from jaxcompress.formats import Int
from jaxcompress.quantize import fake_quant, to_qarray

GOOD = {"layer": {"kernel": jnp.array([[1.0, -2.0], [0.5, 0.0]])}}


@pytest.mark.parametrize("spoiled", [jnp.nan, jnp.inf, -jnp.inf])
@pytest.mark.parametrize(
    "options",
    [
        {"bits": 8},
        {"bits": 1},
        {"bits": 4, "symmetric": False},
        {"bits": 4, "scale": quantize.scales.mse()},
        {"bits": 4, "scale": quantize.scales.lsq()},
        {"bits": 4, "scale": quantize.scales.percentile(0.9)},
        {"fmt": formats.NF4},
        {"fmt": formats.E4M3},
        {"fmt": formats.F16},
    ],
    ids=" ".join,
)
def test_what_is_not_finite_is_named(spoiled, options):
    bad = {"layer": {"kernel": jnp.array([[1.0, spoiled], [0.5, 0.0]])}}
    c = jc.weight_quantization(**options)
    state = c.init(GOOD)
    message = "'layer/kernel' holds NaN or infinite values"
    with pytest.raises(ValueError, match=message):
        c.init(bad)
    with pytest.raises(ValueError, match=message):
        c.finalize(bad, state)
    with pytest.raises(ValueError, match=message):
        jc.compress(c, bad)


@pytest.mark.parametrize(
    "fmt", [Int(8), Int(1), Int(4, False), formats.NF4, formats.E4M3, formats.E2M1]
)
def test_in_a_compiled_view_nan_stays_nan(fmt):
    x = jnp.array([1.0, jnp.nan, -2.0])
    for scale in (quantize.scales.absmax, quantize.scales.unit):
        view = jax.jit(lambda x, s=scale: fake_quant(x, fmt, scale=s))(x)
        assert jnp.isnan(view[1])


def test_nothing_selected():
    for where in ("nothing/*", lambda path, leaf: False):
        with pytest.raises(ValueError, match="select|match"):
            jc.weight_quantization(bits=8, where=where).init(GOOD)


@pytest.mark.parametrize(
    ("granularity", "message"),
    [
        (
            jc.PerChannel(axes=jc.Axes(outputs=5)),
            "'layer/kernel' has shape .2, 2.: there is no axis 5",
        ),
        (jc.PerChannel(axes=jc.Axes(outputs=-3)), "there is no axis -3"),
        (jc.PerTensor(axes=jc.Axes(layers=2)), "there is no axis 2"),
        (jc.PerGroup(2, axes=jc.Axes(contraction=7)), "there is no axis 7"),
        (
            jc.PerGroup(3),
            "must divide axis 0 of .2, 2., of length 2, got 3. Use a divisor",
        ),
        (
            jc.PerGroup(64),
            "must divide axis 0 of .2, 2., of length 2, got 64. Use a divisor",
        ),
    ],
)
def test_granularities_that_do_not_fit(granularity, message):
    c = jc.weight_quantization(bits=8, granularity=granularity)
    with pytest.raises(ValueError, match=message):
        c.init(GOOD)


@pytest.mark.parametrize(
    "factory",
    [
        quantize.scales.mse,
        quantize.scales.entropy,
        quantize.scales.lsq,
        quantize.scales.lsq_plus,
        quantize.scales.pact,
        quantize.scales.minmax,
        quantize.scales.moving_average,
        quantize.scales.percentile,
        quantize.scales.dynamic,
        quantize.scales.held,
        quantize.scales.mean_above,
        quantize.scales.blocks,
    ],
)
def test_a_factory_that_was_not_called(factory):
    with pytest.raises(TypeError, match=f"{factory.__name__}.*not called"):
        jc.compress(jc.weight_quantization(bits=4, scale=factory), GOOD)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("scale", 0.1),
        ("scale", "mse"),
        ("rounding", quantize.rounding.learned),
        ("rounding", quantize.rounding.stochastic),
        ("rounding", "stochastic"),
        ("gradient", quantize.gradients.soft),
        ("gradient", "ste"),
        ("granularity", jc.PerChannel),
        ("granularity", "channel"),
        ("fmt", Int),
        ("fmt", "int8"),
        ("fmt", jnp.int8),
    ],
)
def test_an_argument_of_another_kind(argument, value):
    """The message says which argument; not one of Python's about some attribute."""
    options = {"fmt": Int(4)} | {argument: value}
    with pytest.raises((TypeError, ValueError), match=argument):
        c = jc.weight_quantization(**options)  # pyright: ignore[reportArgumentType]
        jax.grad(lambda p: c.apply(p, c.init(p))["layer"]["kernel"].sum())(GOOD)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "one of bits= and fmt=, got neither"),
        ({"bits": 4, "fmt": Int(4)}, "got bits=4 and fmt="),
        ({"fmt": Int(4), "symmetric": False}, "symmetric=False belongs to bits="),
        ({"bits": "int8"}, "bits must be an integer .* got '?int8'?"),
        ({"bits": True}, "bits must be an integer .* got True"),
        ({"bits": 32}, "bits must be an integer .* got 32"),
    ],
)
def test_formats_that_contradict_themselves(options, message):
    with pytest.raises(ValueError, match=message):
        jc.weight_quantization(**options)


def test_bits_of_numpy_are_bits(tmp_path):
    shipped = jc.compress(jc.weight_quantization(bits=np.int64(4)), GOOD)  # pyright: ignore[reportArgumentType]
    jc.save(tmp_path / "file", shipped)
    back = jc.load(tmp_path / "file")
    assert back["layer"]["kernel"].format == Int(4)
    same(back["layer"]["kernel"].dense(), shipped["layer"]["kernel"].dense())


@pytest.mark.parametrize("bits", [0, 12, 40])
def test_bits_in_an_array_that_is_known(bits):
    with pytest.raises(ValueError, match=f"{bits}"):
        Int(jnp.int32(bits))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("narrow", [False, True])
def test_unsigned_codes_never_wrap(bits, narrow):
    if bits == 1 and narrow:
        return
    for scale in (
        quantize.scales.absmax,
        quantize.scales.mse(),
        quantize.scales.lsq_plus(),
        quantize.scales.pact(),
    ):
        c = quantize.quantize(
            Int(bits, False, narrow), granularity=jc.PerTensor(), scale=scale
        )
        run = jax.jit(lambda w, c=c: jc.compress(c, {"w": w})["w"])
        for values in ((-1.0, 3.0), (-3.0, -1.0), (1.0, 3.0), (-5e3, 1e-3)):
            w = np.linspace(*values, 33, dtype=np.float32)
            q = run(w)
            assert q.codes.dtype == q.zero_point.dtype == jnp.uint8
            dense = np.asarray(q.dense())
            assert (np.diff(dense) >= 0).all()  # ascending, as what was rounded is
            assert (np.sign(dense) * np.sign(w) >= 0).all()


@pytest.mark.parametrize("narrow", [None, True, False])
@pytest.mark.parametrize(
    "scale",
    [
        quantize.scales.unit,
        quantize.scales.absmax,
        quantize.scales.pact(),
        quantize.scales.held(quantize.scales.unit),
    ],
)
def test_zero_is_a_level_of_every_asymmetric_grid(scale, narrow):
    w = jnp.array([[0.0, 3.0], [1.0, -2.0], [0.0, 0.0]])
    c = jc.weight_quantization(fmt=Int(4, False, narrow), scale=scale)
    view = c.apply({"w": w}, c.init({"w": w}))["w"]
    assert not view[w == 0].any()


def test_the_order_of_tracing_changes_nothing():
    w = normal(8, 4)
    x = normal(3, 8, seed=1)
    c = jc.weight_quantization(bits=3)
    way = jc.program.ActivationQuantizer(Int(4), quantize.scales.dynamic())

    def results(quantized_first):
        product = jax.jit(lambda x, w: x @ w)

        def model(params, x):
            return jnp.tanh(product(x, params["w"]))

        quantized = jc.quantize_activations(model, way)

        def in_floats():
            return jax.jit(model)({"w": w}, x)

        def on_the_grid():
            view = c.apply({"w": w}, c.init({"w": w}))
            known = quantized.init(view, x)
            return jax.jit(quantized.frozen)(view, known, x)[0]

        if quantized_first:
            second = on_the_grid()
            return in_floats(), second
        return in_floats(), on_the_grid()

    for a, b in zip(results(False), results(True), strict=True):
        same(a, b)
    floats, grid = results(True)
    assert jnp.abs(floats - grid).max() > 1e-3
    np.testing.assert_allclose(floats, np.tanh(x @ w), rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_])
def test_leaves_of_whole_numbers_are_not_rounded_in_silence(dtype):
    """A careless ``where="*"`` selects a step counter or a table of indices too."""
    params = {
        "kernel": jnp.ones((4, 2)),
        "step": jnp.arange(8).reshape(4, 2).astype(dtype),
    }
    c = jc.weight_quantization(bits=2, where="*")
    with pytest.raises((TypeError, ValueError), match="step"):
        jc.compress(c, params)


def test_a_leaf_of_scales_cannot_be_held():
    with pytest.raises(TypeError, match="held needs a scale that returns arrays"):
        held = quantize.scales.held(quantize.scales.two_level)
        jc.weight_quantization(fmt=formats.E2M1, scale=held).init(GOOD)


def test_a_state_of_other_weights_is_not_used_in_silence():
    other = {"layer": {"kernel": jnp.ones((2, 7))}}
    for scale in (quantize.scales.absmax, quantize.scales.lsq()):
        c = jc.weight_quantization(bits=4, scale=scale)
        with pytest.raises((TypeError, ValueError)):
            c.apply(other, c.init(GOOD))


def test_scale_shapes_that_do_not_divide():
    for shape in ((3, 2), (1,), (1, 1, 1), (2, 4)):
        with pytest.raises((TypeError, ValueError)):
            to_qarray(jnp.ones((4, 2)), Int(4), scale_shape=shape)


def test_a_range_that_saw_nothing_gives_nan_and_no_numbers():
    quantized = jc.quantize_activations(lambda p, x: x @ p["w"])
    params, x = {"w": jnp.eye(2)}, jnp.ones((3, 2))
    with pytest.warns(jc.program.RangeWarning, match="is NaN"):
        out, _ = quantized.frozen(params, quantized.init(params, x), x)
    assert jnp.isnan(out).all()


def test_quantizing_twice_is_refused_or_changes_nothing():
    c = jc.weight_quantization(bits=4)
    once = jc.compress(c, GOOD)
    try:
        twice = jc.compress(c, once)
    except (TypeError, ValueError) as error:
        assert re.search("layer/kernel|QArray|compressed", str(error))
    else:
        same(jc.dense(twice)["layer"]["kernel"], jc.dense(once)["layer"]["kernel"])
