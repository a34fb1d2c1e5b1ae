# SPDX-License-Identifier: Apache-2.0
"""Which points are quantized and how, and what is said where that makes no sense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import (
    ActivationQuantizer,
    OpaqueWarning,
    everywhere,
)
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.scales import dynamic

FOUR = ActivationQuantizer(Int(4, symmetric=False), dynamic())
EIGHT = ActivationQuantizer(Int(8, symmetric=False), dynamic())
MATRICES = {name: normal(4, 4, seed=i) for i, name in enumerate("uvw")}
X = normal(6, 4, seed=3)


def mlp(params, x):
    return jax.nn.relu(x @ params["w"]) @ params["u"]


def test_the_first_glob_that_matches_counts():
    policy = {"w/output": None, "input/*": FOUR, "*/output": EIGHT, "*": FOUR}
    known = jc.quantize_activations(mlp, policy).points(MATRICES, X)
    # What w gives is no point, so what u reads is one.
    assert {name: way for name, (_, way) in known.items()} == {
        "input/0": FOUR,
        "u/output": EIGHT,
        "u/input": FOUR,
    }


def test_points_print_as_a_table():
    first, second, *_ = str(jc.quantize_activations(mlp).points(MATRICES, X)).split(
        "\n"
    )
    assert first.split() == ["point", "boundary", "value", "format", "scale"]
    cells = ["w/input", "operand", "float32[6,4]", "uint8", "moving_average"]
    assert second.split() == cells
    nf4 = ActivationQuantizer(jc.formats.NF4, jc.quantize.scales.absmax)
    table = str(jc.quantize_activations(mlp, lambda _: nf4).points(MATRICES, X))
    assert "absmax" in table and max(map(len, table.split("\n"))) < 100


def test_what_no_glob_matches_is_left_alone():
    known = jc.quantize_activations(mlp, {"u/*": EIGHT}).points(MATRICES, X)
    assert sorted(known) == ["u/input", "u/output"]


def test_each_operand_may_have_its_format():
    policy = {"u/input": FOUR, "*/input": EIGHT, "*": None}
    quantized = jc.quantize_activations(mlp, policy)
    ranges = quantized.init(MATRICES, X)
    assert sorted(ranges) == ["u/input", "w/input"]
    out, _ = jax.jit(quantized.frozen)(MATRICES, ranges, X)
    hidden = jax.nn.relu(fake_quant(X, EIGHT.fmt) @ MATRICES["w"])
    by_hand = fake_quant(hidden, FOUR.fmt) @ MATRICES["u"]
    np.testing.assert_allclose(out, by_hand, rtol=1e-5, atol=1e-5)


def test_a_function_chooses_by_the_point():
    def wide(point):
        return EIGHT if point.value.shape[-1] > 4 else None

    def fn(params, x):
        return jnp.tanh(x @ params["w"].reshape(2, 8)) @ params["u"].reshape(8, 2)

    known = jc.quantize_activations(fn, wide).points(MATRICES, X[:, :2])
    assert sorted(known) == ["u/input", "w/output"]


def test_a_glob_that_matches_nothing_names_the_closest():
    quantized = jc.quantize_activations(mlp, {"w/outptu": EIGHT, "*": EIGHT})
    message = "'w/outptu' matches none of 3 points; closest: 'w/output'"
    with pytest.raises(ValueError, match=message):
        quantized.init(MATRICES, X)


@pytest.mark.parametrize("policy", [lambda point: None, {"*": None}])
def test_a_policy_that_takes_nothing_is_refused(policy):
    message = "no activation .* the policy selects none of the points .*'input/0'"
    with pytest.raises(ValueError, match=message):
        jc.quantize_activations(mlp, policy).points(MATRICES, X)


def test_a_function_without_activations_is_refused():
    quantized = jc.quantize_activations(lambda params, x: x + 1)
    with pytest.raises(ValueError, match="it has no floating-point input"):
        quantized.init(MATRICES, jnp.arange(3))


@pytest.mark.parametrize("policy", [Int(8), 8, "*"])
def test_what_is_no_policy_is_refused(policy):
    name = type(policy).__name__
    with pytest.raises(
        TypeError, match=f"policy must be an Activation.*, got a {name}"
    ):
        jc.quantize_activations(mlp, policy).init(MATRICES, X)


def test_ranges_of_another_function_are_refused():
    other = jc.quantize_activations(lambda params, x: x @ params["v"])
    ranges = other.init(MATRICES, X)
    quantized = jc.quantize_activations(mlp)
    message = "state for 'v/input', which .* closest: '[uw]/input'.*another"
    with pytest.raises(ValueError, match=message):
        quantized.frozen(MATRICES, ranges, X)


def test_missing_ranges_are_named():
    quantized = jc.quantize_activations(mlp)
    ranges = quantized.init(MATRICES, X)
    del ranges["w/input"]
    message = "no state for 'w/input'. Make it with `init`"
    for mode in (quantized.calibrate, quantized.train, quantized.frozen):
        with pytest.raises(ValueError, match=message):
            mode(MATRICES, ranges, X)


def test_a_product_under_a_derivative_rule_of_its_own_is_told():
    @jax.custom_vjp
    def product(x, w):
        return x @ w

    product.defvjp(lambda x, w: (x @ w, (x, w)), lambda kept, g: (g @ kept[1].T, g))

    def fn(params, x):
        return product(jax.nn.relu(x @ params["w"]), params["u"])

    quantized = jc.quantize_activations(fn, everywhere(EIGHT))
    start = quantized.init(MATRICES, X)
    message = "quantize_activations leaves these parts.*\n.*custom_vjp.*1 products"
    with pytest.warns(OpaqueWarning, match=message):
        out, _ = quantized.calibrate(MATRICES, start, X)
    np.testing.assert_array_equal(out, fn(MATRICES, X))
    inside = jc.quantize_activations(fn, everywhere(EIGHT), inline_custom=True)
    known = inside.init(MATRICES, X)
    assert sorted(known) == ["input/0", "u/output", "w/output"]
    inside.calibrate(MATRICES, known, X)  # without a warning
