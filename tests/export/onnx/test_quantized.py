# SPDX-License-Identifier: Apache-2.0
"""Simulated quantization becomes integer operators with the same results."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_graphs import coded, graph_of, point
from jax import lax
from onnx_checks import compare, dense, exported, longer, onnx

from jaxcompress.export._onnx import ONNX, emit
from jaxcompress.formats import Int
from jaxcompress.program.dataflow import Codes

RNG = np.random.default_rng(3)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def conv(x, w, b, stride=1, groups=1):
    y = lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )
    return y + b.reshape(1, 1, 1, -1)


def network(p, x):
    x = point(x, 4 / 255, 128)
    x = point(jax.nn.relu(conv(x, p["w0"], p["b0"])), 6 / 255)
    y = point(jax.nn.relu(conv(x, p["w1"], p["b1"], 2)), 6 / 255)
    y = point(conv(y, p["w2"], p["b2"]), 8 / 255, 128)
    z = point(conv(x, p["w3"], p["b3"], 2), 8 / 255, 128)
    x = point(jax.nn.relu(y + z), 7 / 255)
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = point(jax.nn.relu(conv(x, p["w4"], p["b4"], 1, 8)), 7 / 255)
    x = point(x.mean((1, 2)), 5 / 255)
    return point(x @ p["w5"] + p["b5"][None], 10 / 255, 128)


def weights():
    shapes = [
        (3, 3, 3, 4),
        (3, 3, 4, 8),
        (3, 3, 8, 8),
        (1, 1, 4, 8),
        (3, 3, 1, 8),
        (8, 5),
    ]
    params = {}
    for i, shape in enumerate(shapes):
        scaled = normal(*shape) / np.sqrt(np.prod(shape[:-1]))
        params[f"w{i}"] = coded(scaled, axes=tuple(range(len(shape) - 1)))
        params[f"b{i}"] = normal(shape[-1]) / 5
    return params


X = normal(2, 8, 8, 3)
FUSED = {
    "DequantizeLinear",
    "MaxPool",
    "QGemm",
    "QLinearAdd",
    "QLinearConv",
    "QLinearGlobalAveragePool",
    "QuantizeLinear",
    "Squeeze",
    "Transpose",
}


@pytest.mark.parametrize("opset", [19, 21, 23])
def test_a_network_runs_as_integers(opset):
    params = weights()
    model, kinds, differences = exported(network, params, X, opset=opset)
    compare(network, params, model, X, atol=10.01 / 255)
    compare(network, params, model, longer(X), atol=10.01 / 255)
    kinds = ONNX.operators(model)
    assert set(kinds) == FUSED
    assert kinds["QLinearConv"] == 5 and kinds["QGemm"] == 1
    assert kinds["QuantizeLinear"] == kinds["DequantizeLinear"] == 1
    assert not differences


def plainly(model, *args):
    """Run a model operator by operator, as the standard says."""
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(model))
    feeds = {str(name): x for name, x in zip(evaluator.input_names, args, strict=True)}
    (result,) = evaluator.run(None, feeds)
    return np.asarray(result)


def encoder(p, x):
    b, t, d = x.shape
    x = point(x, 4 / 255, 128)
    q, k, v = (
        point(x @ p[n] + p["b" + n][None, None], 8 / 255, 128).reshape(b, t, 2, -1)
        for n in "qkv"
    )
    scores = point(jnp.einsum("bthd,bshd->bhts", q, k) / 2, 8 / 255, 128)
    y = point(jax.nn.softmax(scores), 1 / 255)
    y = point(jnp.einsum("bhts,bshd->bthd", y, v), 8 / 255, 128).reshape(b, t, d)
    return point(x + point(y @ p["o"], 8 / 255, 128), 12 / 255, 128)


def test_attention_multiplies_integers():
    params = {n: coded(normal(8, 8) / 3, axes=(0,)) for n in "qkvo"}
    params |= {"b" + n: normal(8) / 3 for n in "qkv"}
    x = normal(2, 5, 8)
    model, _, _ = exported(encoder, params, x)
    kinds = ONNX.operators(model)
    assert kinds["QGemm"] == 4
    assert kinds["QLinearMatMul"] + kinds["MatMulIntegerToFloat"] == 2
    assert not {"Gemm", "MatMul"} & set(kinds)
    # onnxruntime's softmax of integers has a table, whose error passes through a product.
    compare(encoder, params, model, x, atol=2.01 * 12 / 255)
    got = plainly(model, x)
    np.testing.assert_allclose(got, encoder(dense(params), x), atol=1.01 * 12 / 255)


def test_a_tensor_is_rounded_once_for_all_readers():
    def fn(p, x):
        x = jnp.tanh(x)
        return point(x, 1 / 128, 128) @ p["w"], point(x, 1 / 128, 128) @ p["v"]

    params = {"w": coded(normal(6, 4), axes=(0,)), "v": coded(normal(6, 3), axes=(0,))}
    model, kinds, _ = exported(fn, params, normal(3, 6))
    assert kinds["QuantizeLinear"] == 1 and kinds["DequantizeLinear"] == 3
    compare(fn, params, model, normal(3, 6), atol=1e-5)


FORMATS = {
    "int8": Int(8),
    "wide": Int(8, narrow=False),
    "int6": Int(6),
    "int4": Int(4),
    "ternary": Int(2),
    "uint4": Int(4, symmetric=False),
    "int16": Int(16),
}


@pytest.mark.parametrize("name", FORMATS)
def test_codes_keep_their_values_in_every_format(name):
    format = FORMATS[name]
    w = normal(6, 5)
    codes = coded(w, format, (0,))
    if not format.symmetric:
        zero = np.full(codes.scale.shape, 7, np.int32)
        raw = np.clip(np.rint(w / codes.scale) + 7, format.low, format.high)
        codes = Codes(raw.astype(np.uint8), codes.scale, zero, format)
    elif format.bits == 16:
        raw = np.rint(w / codes.scale)
        codes = Codes(raw.astype(np.int16), codes.scale, codes.zero_point, format)

    def fn(p, x):
        return x @ p["w"], 2 * p["w"][:1] * x[:, :5]

    model, _, differences = exported(fn, {"w": codes}, normal(3, 6))
    compare(fn, {"w": codes}, model, normal(3, 6), atol=1e-5)
    assert [d for d in differences if "accuracy_level" not in d] == []
    kinds = {"int4": "INT4", "ternary": "INT4", "uint4": "UINT4", "int16": "INT16"}
    stored = {t.data_type for t in onnx.load_from_string(model).graph.initializer}
    assert getattr(onnx.TensorProto, kinds.get(name, "INT8")) in stored


@pytest.mark.parametrize("axes", [(0, 1), (1,), (0,)], ids=["one", "row", "column"])
@pytest.mark.parametrize("zero", [0, 3])
def test_look_ups_take_codes_and_not_floats(axes, zero):
    codes = coded(normal(9, 6), axes=axes)
    if zero:
        format = Int(8, symmetric=False)
        points = np.full(codes.zero_point.shape, zero, np.int32)
        codes = Codes(np.abs(codes.codes), codes.scale, points, format)
    ids = RNG.integers(0, 9, (3, 4)).astype(np.int32)

    def fn(p, i):
        return p["table"][i], jnp.take(p["table"], i % 6, axis=1)

    model, _, _ = exported(fn, {"table": codes}, ids)
    compare(fn, {"table": codes}, model, longer(ids), atol=1e-6)
    nodes = onnx.load_from_string(model).graph.node
    whole = [
        n
        for n in nodes
        if n.op_type == "DequantizeLinear" and "Gather" not in n.input[0]
    ]
    assert not whole


def test_scales_along_several_axes_are_stored_dense_with_the_reason():
    codes = coded(normal(6, 5, 4), axes=(1,))
    fn = lambda p, x: jnp.einsum("btd,tdf->btf", x, p["w"])  # noqa: E731
    x = normal(2, 6, 5)
    model, _, differences = exported(fn, {"w": codes}, x)
    assert differences == ["w is stored as floats: scales along several axes (8 bits)"]
    compare(fn, {"w": codes}, model, x)


def test_scales_of_several_output_axes_are_one_axis_of_the_product():
    codes = coded(normal(6, 2, 3), axes=(0,))
    fn = lambda p, x: jnp.einsum("btd,dhk->bthk", x, p["w"])  # noqa: E731
    model, kinds, differences = exported(fn, {"w": codes}, normal(2, 4, 6))
    assert kinds["DequantizeLinear"] == 1
    assert len(differences) == 1 and "accuracy_level" in differences[0]
    compare(fn, {"w": codes}, model, normal(2, 4, 6))


@pytest.mark.parametrize(
    ("format", "zero"),
    [(Int(8), 0), (Int(4, symmetric=False), 3), (Int(4), 0), (Int(16), 0)],
)
def test_points_of_other_formats(format, zero):
    def fn(p, x):
        return point(x, 0.1, zero, format)

    # Values in the middle between two codes may be rounded either way.
    x = RNG.integers(-300, 300, (4, 9)).astype(np.float32) * 0.0317
    model, _, differences = exported(fn, {}, x)
    if format.bits == 8:
        assert differences == [
            "points may take the code -128, which the format leaves out; narrow=False "
            "trains with it"
        ]
        x = np.clip(x, -12.7, None)
    compare(fn, {}, model, x, atol=1e-5)


def test_symmetric_points_run_as_integers():
    def fn(p, x):
        return point(point(x, 0.03, 0, Int(8)) @ p["w"] + p["b"][None], 0.1, 0, Int(8))

    params = {"w": coded(normal(6, 4), axes=(0,)), "b": normal(4)}
    x = normal(3, 6)
    model, _, _ = exported(fn, params, x)
    compare(fn, params, model, x, atol=0.101)
    assert "QGemm" in ONNX.operators(model)


def test_channels_whose_scale_is_zero_keep_their_bias():
    codes = coded(normal(6, 4), axes=(0,))
    scale = codes.scale * np.array([[1, 0, 1, 0]], np.float32)
    params = {"w": Codes(codes.codes, scale, codes.zero_point, Int(8)), "b": normal(4)}

    def fn(p, x):
        return point(x, 4 / 255, 128) @ p["w"] + p["b"][None]

    model, _, _ = exported(fn, params, normal(3, 6))
    compare(fn, params, model, normal(3, 6), atol=1e-2)


def test_a_bias_that_no_integer_holds_stays_a_float():
    params = {
        "w": coded(1e-6 * normal(6, 4), axes=(0,)),
        "b": np.full(4, 100, np.float32),
    }

    def fn(p, x):
        return point(x, 4 / 255, 128) @ p["w"] + p["b"][None]

    model, kinds, _ = exported(fn, params, normal(3, 6))
    assert kinds["DequantizeLinear"] == 2
    compare(fn, params, model, normal(3, 6))


def test_older_opsets_store_small_codes_in_bytes():
    params = {"w": coded(normal(6, 4), Int(4), (0,))}
    fn = lambda p, x: x @ p["w"]  # noqa: E731
    small, large = (
        emit(graph_of(fn, params, normal(3, 6)), opset=opset).model
        for opset in (21, 19)
    )
    assert small.graph.initializer[0].data_type == onnx.TensorProto.INT4
    assert large.graph.initializer[0].data_type == onnx.TensorProto.INT8
    compare(fn, params, large.SerializeToString(), normal(3, 6))
