# SPDX-License-Identifier: Apache-2.0
"""The default: what products multiply is quantized, and nothing between them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put

import jaxcompress as jc
from jaxcompress.formats import Int
from jaxcompress.program import (
    ActivationQuantizer,
    Boundary,
    everywhere,
    operands_only,
)
from jaxcompress.quantize import fake_quant
from jaxcompress.quantize.scales import dynamic

FMT = Int(8, symmetric=False)
DYNAMIC = ActivationQuantizer(FMT, dynamic())
SHAPES = {name: (16, 16) for name in "qkvo"} | {"up": (16, 32), "down": (32, 16)}
PARAMS = {
    name: normal(*shape, seed=i, scale=0.25)
    for i, (name, shape) in enumerate(SHAPES.items())
}
# One channel of the residual stream dwarfs the others, as in pretrained transformers.
X = put(np.asarray(normal(4, 8, 16, seed=9)) * np.where(np.arange(16) == 3, 300.0, 1.0))


def block(params, x, operand=lambda x: x):
    """A transformer block; ``operand`` is applied to all data that a product reads."""

    def normed(x):
        x = x - x.mean(-1, keepdims=True)
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)

    h = operand(normed(x))
    q, k, v = (operand(h @ params[name]) for name in "qkv")
    weights = operand(jax.nn.softmax(jnp.einsum("btd,bsd->bts", q, k) / 4.0))
    x = x + operand(jnp.einsum("bts,bsd->btd", weights, v)) @ params["o"]
    h = operand(normed(x))
    return x + operand(jax.nn.gelu(h @ params["up"])) @ params["down"]


@pytest.mark.parametrize(
    "policy",
    [DYNAMIC, operands_only(DYNAMIC), {"*": operands_only(DYNAMIC)}],
    ids=["quantizer", "operands only", "dict"],
)
def test_operands_of_products_are_rounded_and_nothing_else(policy):
    quantized = jc.quantize_activations(block, policy)
    out, _ = jax.jit(quantized.frozen)(PARAMS, quantized.init(PARAMS, X), X)
    rounded = jax.jit(lambda p, x: block(p, x, lambda v: fake_quant(v, FMT)))(PARAMS, X)
    np.testing.assert_allclose(out, rounded, rtol=1e-4, atol=1e-4)
    assert jnp.abs(out - block(PARAMS, X)).max() > 1e-3  # which the tolerance would see


def test_the_default_points_are_the_operands_of_sites():
    calls = []
    jax.eval_shape(lambda: block(PARAMS, X, lambda v: calls.append(v) or v))
    points = jc.quantize_activations(block).points(PARAMS, X)
    assert len(points) == len(calls) == 8
    assert {point.boundary for point, _ in points.values()} == {Boundary.OPERAND}
    assert all(way == ActivationQuantizer() for _, way in points.values())
    sites = {site.name for site in jc.sites(block, PARAMS, X)}
    assert all(p.site is not None and p.site.name in sites for p, _ in points.values())


def test_outliers_of_the_residual_stream_do_not_reach_the_default():
    exact = block(PARAMS, X)

    def error(policy):
        quantized = jc.quantize_activations(block, policy)
        start = quantized.init(PARAMS, X)
        _, ranges = jax.jit(quantized.calibrate)(PARAMS, start, X)
        out, _ = jax.jit(quantized.frozen)(PARAMS, ranges, X)
        # Of the ordinary channels: the outlier would hide them.
        difference = jnp.delete(out - exact, 3, axis=-1)
        return jnp.linalg.norm(difference) / jnp.linalg.norm(jnp.delete(exact, 3, -1))

    assert error(None) < 0.05 < error(everywhere())


def test_a_dict_may_make_exceptions_from_a_policy():
    four = ActivationQuantizer(Int(4), dynamic())
    policy = {"q/*": None, "down/input": four, "*": operands_only()}
    points = jc.quantize_activations(block, policy).points(PARAMS, X)
    default = jc.quantize_activations(block).points(PARAMS, X)
    # k reads what q reads, and takes it over.
    assert set(points) == {"k/input" if n == "q/input" else n for n in default}
    assert points["down/input"][1] == four
    assert points["up/input"][1] == ActivationQuantizer()
