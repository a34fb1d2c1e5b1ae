# SPDX-License-Identifier: Apache-2.0
"""Integer products inside of scans, checkpoints, branches and loops."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal
from jax import lax
from models import Transformer, always, filled
from variants import marked

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import ActivationQuantizer, everywhere
from jaxcompress.quantize import fake_quant, to_qarray
from jaxcompress.quantize.scales import minmax, of_range


def products(fn, *args):
    """Dtypes of the operands and the result of every matrix product in a program."""
    text = jax.jit(fn).lower(*args).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    return {tuple(re.findall(r"tensor<(?:\d+x)*(\w+)>", line)) for line in lines}


TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 11, (6, 5)))
TRANSFORMER = filled(
    jax.eval_shape(lambda: Transformer().init(jax.random.key(0), TOKENS))
)
AXES = jc.PerChannel(
    axes={
        "*/embedding": jc.Axes(outputs=0),
        "*/out/kernel": jc.Axes(outputs=(0, -1)),
        "*/attention/*/kernel": jc.Axes(outputs=(0, -2, -1)),
        "*/kernel": jc.Axes(outputs=(0, -1)),
    }
)


def is_matrix(path, leaf):
    return path.endswith(("kernel", "embedding"))


def transformer(params, tokens):
    return Transformer().apply(params, tokens)


def packed_transformer(**options):
    chosen = jc.weight_quantization(granularity=AXES, where=is_matrix, **options)
    return jc.compress(chosen, TRANSFORMER)


def round_rows(site, op, operands, state):
    """The rule of what ``execute`` does without a policy, in floats."""
    operands = list(operands)
    if site.weight is not None and site.primitive == "dot_general":
        x, summed = operands[1 - site.weight], site.contraction[1 - site.weight]
        rows = [1 if i in summed else n for i, n in enumerate(x.shape)]
        operands[1 - site.weight] = fake_quant(x, Int(8), scale_shape=rows)
    return op(*operands), state


@pytest.mark.slow
def test_layers_in_a_checkpointed_scan_are_multiplied_by_integers():
    packed = packed_transformer(bits=8)
    execution = jc.execute(transformer, pays=always)
    steps = execution.plan(packed, TOKENS).steps
    float_steps = {s.site.name: s.reason for s in steps if not s.integers}
    assert set(float_steps.values()) == {"data times data"} and len(float_steps) == 2
    layers = [s.site.name for s in steps if s.integers and s.site.layers == (3,)]
    assert len(layers) == 6
    assert steps[-1].integers and steps[-1].site.name == "params/embed/embedding#1"
    floats = jc.dense(packed)
    out = jax.jit(execution.run)(packed, TOKENS)
    rounded, _ = jax.jit(jc.rewrite(transformer, round_rows))(floats, {}, TOKENS)
    exact = jax.jit(transformer)(floats, TOKENS)
    # Both round the same rows, but for what floats have lost in summing: that matters
    # at a tie, which is rare, and moves a code of one example.
    same = abs(out - rounded).max((1, 2)) <= 1e-4 * abs(exact).max()
    assert same.sum() >= 4
    assert abs(out - rounded).max() <= abs(rounded - exact).max()


@pytest.mark.parametrize(
    "inputs", marked([True, False], slow=[True]), ids=["inputs symmetric", "not"]
)
def test_with_ranges_a_transformer_computes_its_frozen_mode(inputs):
    packed = packed_transformer(bits=8, symmetric=not inputs)
    eight = ActivationQuantizer(Int(8, inputs), minmax())
    policy = everywhere(eight)
    quantized, floats = jc.quantize_activations(transformer, policy), jc.dense(packed)
    start = quantized.init(floats, TOKENS)
    _, ranges = jax.jit(quantized.calibrate)(floats, start, TOKENS)
    execution = jc.execute(transformer, policy, pays=always)
    steps = execution.plan(packed, TOKENS, ranges=ranges)
    assert sum(s.integers for s in steps.steps) == 7
    out = jax.jit(execution.run)(packed, TOKENS, ranges=ranges)
    expected, _ = jax.jit(quantized.frozen)(floats, ranges, TOKENS)
    # Both lie on the grid of the result. They differ where a sum in floats fell on the
    # other side of a tie, at a point inside or at the last: by a code, and rarely.
    low, high, _ = ranges["params/embed/embedding#1/output"]
    steps_off = (out - expected) / of_range(low, high, eight.fmt)[0]
    np.testing.assert_allclose(steps_off, jnp.round(steps_off), atol=1e-2)
    assert abs(steps_off).max() < 1.5 and (abs(steps_off) < 0.5).mean() > 0.9


def stacked(params, x):
    return lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, params["kernel"])[0]


X = normal(10, 16, seed=99)
STACK = {"kernel": normal(3, 16, 16, scale=0.3)}


def test_a_scan_has_integer_products_and_neither_float_ones_nor_dense_weights():
    how = jc.PerChannel(axes=jc.Axes(outputs=(0, -1)))
    packed = jc.compress(jc.weight_quantization(bits=8, granularity=how), STACK)
    run = jc.execute(stacked, pays=always).run
    assert products(stacked, STACK, X) == {("f32", "f32", "f32")}
    assert products(run, packed, X) == {("i8", "i8", "i32")}
    compiled = str(jax.jit(run).lower(packed, X).compile().as_text())
    assert " s32[10,16]{1,0} dot(" in compiled
    assert "f32[3,16,16]" not in compiled and "f32[16,16]" not in compiled


@pytest.mark.parametrize(
    ("scales", "symmetric"),
    [
        ((3, 1, 1), True),
        pytest.param((1, 1, 16), True, marks=pytest.mark.slow),
        ((3, 1, 16), False),
        ((1, 1, 16), False),
        pytest.param((1, 1, 1), False, marks=pytest.mark.slow),
    ],
)
def test_layers_may_share_their_scales(scales, symmetric):
    def fn(params, x):
        return lax.scan(lambda x, w: (x, x @ w), x, params["kernel"])[1]

    leaf = to_qarray(STACK["kernel"], Int(8, symmetric), scale_shape=scales)
    execution = jc.execute(fn, pays=always)
    assert execution.plan({"kernel": leaf}, X).steps[0].integers
    out = jax.jit(execution.run)({"kernel": leaf}, X)
    expected = fake_quant(X, Int(8), scale_shape=(10, 1)) @ leaf.dense()
    np.testing.assert_allclose(out, expected, atol=1e-5)


def in_every_control_flow(params, x):
    def halved(x):
        return jnp.tanh(x @ params["kernel"])

    x = lax.cond(x.sum() > 0, halved, lambda x: 2 * x, x)
    x, _ = lax.while_loop(
        lambda c: c[1] < 2, lambda c: (halved(c[0]), c[1] + 1), (x, 0)
    )

    def layer(x, w):
        def trip(h, now):
            return jnp.tanh(h @ w + now), None

        return lax.scan(trip, x, jnp.stack([x, x]))[0], None

    return lax.scan(layer, x, params["stack"])[0]


def test_products_in_branches_and_in_loops_of_any_kind_run_on_integers():
    params = {"kernel": STACK["kernel"][0], "stack": STACK["kernel"][1:]}
    axes = jc.PerChannel(axes=jc.Axes(outputs=(0, -1))), jc.PerChannel()
    packed = {
        name: jc.compress(
            jc.weight_quantization(bits=8, granularity=how), {"kernel": params[name]}
        )["kernel"]
        for name, how in zip(["stack", "kernel"], axes, strict=True)
    }
    run = jc.execute(in_every_control_flow, pays=always).run
    assert products(run, packed, X) == {("i8", "i8", "i32")}
    rule = jax.jit(jc.rewrite(in_every_control_flow, round_rows))
    for x in (X, -X):
        expected, _ = rule(jc.dense(packed), {}, x)
        # A tie may fall the other way in floats, and move a code of 1 / 127 by one.
        assert abs(jax.jit(run)(packed, x) - expected).max() < 0.02
        assert abs(expected).max() > 0.2
