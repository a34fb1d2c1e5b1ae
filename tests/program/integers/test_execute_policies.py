# SPDX-License-Identifier: Apache-2.0
"""Executing the frozen mode of a policy: which grids will do, and whose ranges."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from models import always

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import (
    ActivationQuantizer,
    FloatWarning,
    everywhere,
    operands_only,
)
from jaxcompress.quantize import to_qarray
from jaxcompress.quantize.scales import dynamic, minmax

X = normal(9, 16, seed=1)
PARAMS = {
    "kernel": jax.jit(lambda w: to_qarray(w, Int(8), scale_shape=(1, 8)))(normal(16, 8))
}


def product(params, x):
    return x @ params["kernel"]


STATIC = ActivationQuantizer(scale=minmax())


@pytest.mark.parametrize(
    ("policy", "reason"),
    [
        ({"kernel/output": STATIC}, "the policy does not quantize its input"),
        (ActivationQuantizer(Int(16, False), minmax()), "its input has 16 bits"),
        (
            everywhere(ActivationQuantizer(scale=dynamic())),
            "its input is on the dynamic grid of an earlier value",
        ),
    ],
)
def test_the_policy_may_leave_an_input_that_is_no_bytes(policy, reason):
    quantized = jc.quantize_activations(product, policy)
    start = quantized.init(jc.dense(PARAMS), X)
    _, ranges = quantized.calibrate(jc.dense(PARAMS), start, X)
    execution = jc.execute(product, policy, pays=always)
    (step,) = execution.plan(PARAMS, X, ranges=ranges).steps
    assert not step.integers and step.reason == reason
    expected, _ = jax.jit(quantized.frozen)(jc.dense(PARAMS), ranges, X)
    with pytest.warns(FloatWarning, match=reason):
        out = jax.jit(execution.run)(PARAMS, X, ranges=ranges)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("axis", [None, -1, 0])
@pytest.mark.parametrize("side", ["x @ w", "w @ x"])
def test_a_grid_may_vary_along_rows_and_not_along_what_is_summed(side, axis, symmetric):
    def fn(params, x):
        return product(params, x) if side == "x @ w" else params["kernel"].T @ x.T

    x = X * jnp.exp(normal(9, 1, seed=2)) * jnp.exp(normal(1, 16, seed=3))
    policy = operands_only(ActivationQuantizer(Int(8, symmetric), dynamic(axis)))
    quantized = jc.quantize_activations(fn, policy)
    ranges = quantized.init(jc.dense(PARAMS), x)
    expected, _ = jax.jit(quantized.frozen)(jc.dense(PARAMS), ranges, x)
    execution = jc.execute(fn, policy, pays=always)
    (step,) = execution.plan(PARAMS, x).steps
    rows = {"x @ w": -1, "w @ x": 0}[side]
    assert step.integers == (axis in (None, rows)), step.reason
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FloatWarning)
        out = jax.jit(execution.run)(PARAMS, x)
    # The same sums of the same products; floats have rounded them 16 times.
    room = abs(x) @ abs(jc.dense(PARAMS)["kernel"])
    room = room if side == "x @ w" else room.T
    assert (abs(out - expected) <= 20 * 2.0**-24 * 1.1 * room).all()


def test_ranges_are_asked_for_and_have_to_be_of_the_policy():
    policy = everywhere(STATIC)
    execution = jc.execute(product, policy, pays=always)
    for call in (execution.run, execution.plan):
        with pytest.raises(ValueError, match="pass ranges= from calibrate or train of"):
            call(PARAMS, X)
    quantized = jc.quantize_activations(product, policy)
    ranges = quantized.init(jc.dense(PARAMS), X)
    with pytest.raises(ValueError, match="there is no state for 'kernel/output'"):
        execution.run(PARAMS, X, ranges={"input/0": ranges["input/0"]})
    with pytest.raises(ValueError, match="there is state for 'kernel/input', which"):
        execution.run(PARAMS, X, ranges={**ranges, "kernel/input": ranges["input/0"]})


def test_a_dynamic_policy_needs_no_ranges():
    policy = operands_only(ActivationQuantizer(scale=dynamic()))
    execution = jc.execute(product, policy, pays=always)
    out = execution.run(PARAMS, X)
    np.testing.assert_array_equal(out, execution.run(PARAMS, X, ranges={}))
    expected = to_qarray(X, Int(8, False)).dense() @ jc.dense(PARAMS)["kernel"]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)
