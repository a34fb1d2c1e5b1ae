# SPDX-License-Identifier: Apache-2.0
"""Graphs for exporters compute what the function does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from graphs import primitives, run_graph, weights
from jax import lax

import jaxcompress as jc
from jaxcompress.program.dataflow import CLOSED_OVER, Tensor, Unsupported, dataflow

PER_OUTPUT = jc.quantize.PerChannel(axes={"*": jc.Axes(outputs=-1)})
EIGHT = jc.weight_quantization(
    bits=8, granularity=PER_OUTPUT, where=lambda path, x: path in ("conv", "dense", "w")
)


def conv(x, w):
    return lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def norm(x, p):
    return (x - p["mean"]) * (p["factor"] * lax.rsqrt(p["var"] + 1e-3)) + p["bias"]


def block(params, x):
    """Convolution, batch norm, ReLU, residual sum, mean, dense layer."""
    y = jax.nn.relu(norm(conv(x, params["conv"]), params["norm"]))
    return (x + y).mean((1, 2)) @ params["dense"] + params["b"]


NORM = {
    "mean": normal(1, 1, 1, 4, seed=1),
    # A negative factor turns signs, and zero leaves nothing of a channel.
    "factor": put([[[[1.5, -0.5, 0.0, 2.0]]]]),
    "var": put(np.abs(normal(1, 1, 1, 4, seed=2)) + 0.1),
    "bias": normal(1, 1, 1, 4, seed=3),
}
PARAMS = {
    "conv": normal(3, 3, 4, 4),
    "norm": NORM,
    "dense": normal(4, 3, seed=4),
    "b": normal(1, 3, seed=5),
}
X = normal(2, 5, 5, 4, seed=6)


def check(fn, params, *args):
    graph = dataflow(fn, params, args).graph
    expected = jax.tree.leaves(fn(jc.dense(params), *args))
    for a, b in zip(run_graph(graph, *jax.tree.leaves(args)), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    return graph


def test_a_batch_norm_becomes_a_bias_and_scales_of_the_weight():
    packed = jc.compress(EIGHT, PARAMS)
    for params in (PARAMS, packed):
        graph = check(block, params, X)
        assert primitives(graph) == [
            "conv_general_dilated", "add", "max", "add", "reduce_sum", "div",
            "dot_general", "add",
        ]  # fmt: skip
    kernel = weights(graph)[0]
    assert kernel.codes is not None
    np.testing.assert_array_equal(
        np.abs(kernel.codes.codes[..., [0, 1, 3]]),
        np.abs(packed["conv"].codes[..., [0, 1, 3]]),
    )
    assert kernel.codes.scale.shape == (1, 1, 1, 4) and (kernel.codes.scale > 0).all()
    assert not kernel.codes.codes[..., 2].any() and kernel.leaf == "conv"


def test_rounded_activations_are_operations_with_the_trained_scales():
    packed = jc.compress(EIGHT, PARAMS)
    policy = jc.program.everywhere()
    quantized = jc.quantize_activations(block, policy)
    dense = jc.dense(packed)
    _, ranges = quantized.calibrate(dense, quantized.init(dense, X), X)
    flow = dataflow(block, packed, (X,), policy=policy, ranges=ranges)
    names = [op.params["name"] for op in flow.graph.points()]
    assert set(names) == set(ranges) == set(flow.points)
    assert names[:2] == ["input/0", "conv/output"]
    (out,) = run_graph(flow.graph, X)
    expected = quantized.frozen(dense, ranges, X)[0]
    step = [op.params["scale"] for op in flow.graph.points()][-1]
    np.testing.assert_allclose(out, expected, atol=1.01 * step)
    # Folding rounds the last bits of floats, so a tie may fall to the other side.
    assert np.mean(np.abs(out - expected) > step / 2) < 0.2


def attention(params, x):
    """Projections with kernels of three axes, as Flax has them."""
    q, k = (
        jnp.einsum("btd,dhe->bthe", x, params[n]) + params["b"][None, None]
        for n in "qk"
    )
    scores = jax.nn.softmax(jnp.einsum("bqhe,bkhe->bhqk", q, k))
    mixed = jnp.einsum("bhqk,bkhe->bqhe", scores, k)
    return jnp.einsum("bqhe,hed->bqd", mixed, params["out"])


@pytest.mark.slow
def test_kernels_of_three_axes_become_matrices_with_one_axis_of_scales():
    params = {
        "q": normal(6, 2, 3),
        "k": normal(6, 2, 3, seed=1),
        "b": normal(2, 3, seed=2),
        "out": normal(2, 3, 6, seed=3),
    }
    axes = jc.weight_axes(attention, params, normal(2, 5, 6, seed=4))
    eight = jc.weight_quantization(
        bits=8, granularity=jc.quantize.PerChannel(axes=axes), where=axes
    )
    graph = check(attention, jc.compress(eight, params), normal(2, 5, 6, seed=4))
    shapes = [(w.shape, w.codes.scale.shape) for w in weights(graph)]
    assert shapes == [((6, 6), (1, 6))] * 3
    products = [op for op in graph.operations if op.primitive == "dot_general"]
    follow = graph.readers()[id(products[0].outs[0])]
    assert [op.primitive for op in follow] == ["add"]  # before heads are split


def test_weights_on_the_left_become_matrices_on_the_right():
    def fn(params, x):
        return params["w"] @ x + params["b"][:, None]

    graph = check(fn, {"w": normal(3, 4), "b": normal(3, seed=1)}, normal(4, 5, seed=2))
    assert primitives(graph) == ["transpose", "dot_general", "add", "transpose"]


def layers(params, x):
    """A scan over stacked layers, then a loop of fixed length."""
    x, means = lax.scan(lambda x, w: (jnp.tanh(x @ w), x.mean()), x, params["w"])
    x = lax.fori_loop(0, 3, lambda i, x: x * 1.5 + i, x)
    return x, means, lax.cond(params["flag"][0] > 0, jnp.sin, jnp.cos, x)


def test_loops_are_unrolled_and_layers_keep_their_codes():
    params = {"w": normal(3, 4, 4), "flag": jnp.ones(1)}
    granularity = jc.quantize.PerChannel(
        axes={"w": jc.Axes(outputs=-1, contraction=-2, layers=0)}
    )
    eight = jc.weight_quantization(bits=8, granularity=granularity, where="w")
    graph = check(layers, jc.compress(eight, params), normal(2, 4, seed=1))
    assert [w.codes.scale.shape for w in weights(graph)] == [(1, 4)] * 3
    assert primitives(graph).count("sin") == 1 and "cos" not in primitives(graph)


def test_every_trip_of_a_recurrence_rounds_to_the_same_range():
    def fn(params, x):
        return lax.scan(
            lambda h, x: ((h := jnp.tanh(x + h @ params["w"])), h),
            jnp.zeros((2, 4)),
            x,
        )[0]

    params, x = {"w": normal(4, 4)}, normal(3, 2, 4, seed=1)
    quantized = jc.quantize_activations(fn)
    _, ranges = quantized.calibrate(params, quantized.init(params, x), x)
    graph = dataflow(fn, params, (x,), policy=None, ranges=ranges).graph
    points = list(graph.points())
    assert len(points) == 2  # the first trip rounds zeros, which are a constant
    assert len({float(op.params["scale"]) for op in points}) == 1
    expected = quantized.frozen(params, ranges, x)[0]
    np.testing.assert_allclose(run_graph(graph, x)[0], expected, atol=1e-6)


def test_codes_survive_moves_and_positive_factors_only():
    packed = jc.compress(EIGHT, {"w": normal(4, 6)})

    def codes_of(change):
        graph = dataflow(
            lambda p, x: x @ change(p["w"]), packed, (normal(2, 4, seed=1),)
        ).graph
        return weights(graph)[0]

    half = codes_of(lambda w: (w * 2).astype(jnp.float32)[:, ::2])
    assert half.codes is not None
    np.testing.assert_array_equal(half.codes.codes, packed["w"].codes[:, ::2])
    np.testing.assert_allclose(half.codes.dense(), 2 * jc.dense(packed["w"])[:, ::2])
    assert codes_of(lambda w: w + 1).codes is None
    assert codes_of(lambda w: w * jnp.arange(4.0)[:, None]).codes is None


def test_the_axes_of_the_batch_are_found():
    flow = dataflow(block, PARAMS, (X,), any_batch=True)
    assert flow.fixed == ""
    assert all(x.batch == {0} for op in flow.graph.operations for x in op.outs)

    def crossed(params, x):
        return (x @ params["w"]).T

    flow = dataflow(
        crossed, {"w": normal(4, 3)}, (normal(2, 4, seed=1),), any_batch=True
    )
    assert [x.batch for x in flow.graph.outputs if isinstance(x, Tensor)] == [{1}]

    def counted(params, x):
        return x @ params["w"] if len(x) == 2 else jnp.sin(x @ params["w"])

    fixed = dataflow(
        counted, {"w": normal(4, 3)}, (normal(2, 4, seed=1),), any_batch=True
    )
    assert "other operations" in fixed.fixed
    assert not any(x.batch for x in fixed.graph.outputs if isinstance(x, Tensor))


MADE_FOR_ONE = {
    "average": (lambda p, x: x - x.mean(0, keepdims=True), "a constant of div"),
    "places": (lambda p, x: x + jnp.arange(len(x))[:, None], "a constant of add"),
    "last": (lambda p, x: x - x[-1:], "a position of slice"),
    "but_last": (lambda p, x: x[:-1] * 2, "a position of slice"),
    "repeated": (lambda p, x: jnp.tile(x, (1, len(x))), "a position of tile"),
    "result": (lambda p, x: (x, jnp.arange(len(x))), "a result that is a constant"),
}


@pytest.mark.parametrize("name", MADE_FOR_ONE)
def test_what_is_made_for_one_batch_is_no_function_of_any(name):
    fn, reason = MADE_FOR_ONE[name]
    assert reason in dataflow(fn, {}, (normal(3, 4, seed=1),), any_batch=True).fixed


def test_constants_that_repeat_and_whole_slices_fit_any_batch():
    def fn(params, x):
        token = jnp.broadcast_to(jnp.arange(4.0), (len(x), 4))
        return jnp.concatenate([x[:, 1:], token], 1) + x[:1, :1] + jnp.ones((len(x), 1))

    assert dataflow(fn, {}, (normal(3, 4, seed=1),), any_batch=True).fixed == ""


def test_arrays_that_the_function_closes_over_are_marked():
    table = normal(4, 3)
    graph = dataflow(
        lambda p, x: x @ table + p["b"],
        {"b": normal(1, 3, seed=1)},
        (normal(2, 4, seed=2),),
    ).graph
    assert weights(graph)[0].leaf == CLOSED_OVER


W = {"w": jnp.eye(3)}
ROWS = jnp.arange(6.0).reshape(2, 3)


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (
            lambda p, x: lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x @ p["w"]),
            "branch .* depends on the data; select both results with jnp.where",
        ),
        (
            lambda p, x: lax.while_loop(
                lambda y: y.sum() < 9, lambda y: y + 1, x @ p["w"]
            ),
            "number of trips of a loop .* depends on the data",
        ),
        (
            lambda p, x: lax.fori_loop(0, 5000, lambda i, y: y @ p["w"], x),
            "trips or more; exporters unroll loops of up to 4096",
        ),
    ],
)
def test_what_no_fixed_graph_can_do_is_said(fn, text):
    with pytest.raises(Unsupported, match=text):
        dataflow(fn, W, (ROWS,))


@pytest.mark.parametrize(
    ("quantizer", "calibrated", "text"),
    [
        (
            jc.program.ActivationQuantizer(),
            False,
            "'w/input' gives the scale nan; calib",
        ),
        (
            jc.program.ActivationQuantizer(scale=jc.quantize.scales.dynamic()),
            True,
            "scale of 'w/input' is computed from the data on the fly",
        ),
        (
            jc.program.ActivationQuantizer(jc.formats.E4M3),
            True,
            "'w/input' has the format .* a runtime rounds activations to the nearest",
        ),
    ],
)
def test_activations_that_no_runtime_stores_are_refused(quantizer, calibrated, text):
    def fn(params, x):
        return x @ params["w"]

    quantized = jc.quantize_activations(fn, quantizer)
    ranges = quantized.init(W, ROWS)
    if calibrated:
        _, ranges = quantized.calibrate(W, ranges, ROWS)
    with pytest.raises(Unsupported, match=text):
        dataflow(fn, W, (ROWS,), policy=quantizer, ranges=ranges)
