# SPDX-License-Identifier: Apache-2.0
"""What the exporter and the runtimes refuse, and how they say it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from export_graphs import coded, graph_of, point
from jax import lax
from onnx_checks import compare, exported, longer, onnx

from jaxcompress.export import UnsupportedOperation
from jaxcompress.export._onnx import ONNX, OPENVINO, _proto, emit
from jaxcompress.formats import Int

X = np.random.default_rng(4).normal(size=(2, 4, 6)).astype(np.float32)


def test_all_unsupported_operations_are_named_at_once():
    def fn(p, x):
        with jax.named_scope("head"):
            y = lax.lgamma(x) + lax.digamma(x)
        return y + lax.pad(x, 0.0, [(0, 0, 0), (0, 0, 1), (0, 0, 0)])[:, :4]

    with pytest.raises(UnsupportedOperation) as caught:
        emit(graph_of(fn, {}, X))
    first, *lines = str(caught.value).splitlines()
    assert "nothing was written" in first
    assert lines[:2] == [
        "  lgamma(float32[2,4,6]) in head",
        "  digamma(float32[2,4,6]) in head",
    ]
    assert lines[2].endswith("padding between elements") and len(lines) == 3


UNSUPPORTED = {
    "complex": (lambda p, x: jnp.real(jnp.fft.fft(x)), "fft"),
    "strided_transposed": (
        lambda p, x: lax.conv_general_dilated(
            x, jnp.ones((2, 6, 3)), (2,), [(0, 0)], (2,), None, ("NWC", "WIO", "NWC")
        ),
        "strides and a dilated operand",
    ),
    "data_start": (
        lambda p, x: lax.dynamic_update_slice_in_dim(x, x[:, :1], x.argmax(), 1),
        "a start that is data",
    ),
    "set_at_data": (
        lambda p, x: x.at[:, x[0, 0, 0].astype(int)].set(0.0),
        "indices that are data",
    ),
    "two_keys": (lambda p, x: lax.sort((x, x + 1), num_keys=2), "several keys"),
    "two_indices": (
        lambda p, x: jnp.ones((4, 6))[x[:, 0, 0].astype(int), x[:, 0, 1].astype(int)],
        "indices along several axes",
    ),
    "wide_window": (
        lambda p, x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2), (1, 1, 1), "SAME"),
        "windows along more axes",
    ),
    "integer_window": (
        lambda p, x: lax.reduce_window(
            x.astype(int), np.iinfo(np.int32).min, lax.max, (1, 2, 1), (1, 1, 1), "SAME"
        ),
        "windows of int32",
    ),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_has_no_counterpart_is_refused_with_a_reason(name):
    fn, reason = UNSUPPORTED[name]
    with pytest.raises(UnsupportedOperation, match=reason):
        emit(graph_of(fn, {}, X))


def test_a_constant_as_long_as_the_batch_is_refused():
    fn = lambda p, x: x + jnp.arange(2.0)[:, None, None]  # noqa: E731
    exported(fn, {}, X, dynamic=False)
    graph = graph_of(fn, {}, X)
    for tensor in (*graph.inputs, *graph.operations[0].outs):
        tensor.batch = frozenset({0})
    with pytest.raises(UnsupportedOperation, match="one row for each example"):
        emit(graph)


def test_unknown_opsets_are_refused():
    with pytest.raises(ValueError, match="opset must be from 18 to 23, got 12"):
        emit(graph_of(lambda p, x: x, {}, X), opset=12)


def test_codes_of_16_bits_need_opset_21():
    graph = graph_of(lambda p, x: point(x, 0.1, 0, Int(16)), {}, X)
    with pytest.raises(UnsupportedOperation, match="need opset 21"):
        emit(graph, opset=20)


def test_too_large_models_are_refused(monkeypatch):
    monkeypatch.setattr(_proto, "_MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="an ONNX file holds 2 GB"):
        emit(graph_of(lambda p, x: x @ p, X[0].T @ X[0] @ np.ones((6, 99)), X))


@pytest.fixture(scope="module")
def model():
    def fn(p, x, i):
        return x @ p["w"], i + 1

    params = {"w": coded(np.ones((6, 3), np.float32))}
    return exported(fn, params, X, np.arange(2, dtype=np.int32))[0]


BACKENDS = pytest.mark.parametrize("backend", [ONNX, OPENVINO], ids=lambda b: b.name)


@BACKENDS
@pytest.mark.filterwarnings("ignore:os.fork")  # importing OpenVINO starts processes
def test_runtimes_run_any_batch(model, backend):
    pytest.importorskip("openvino" if backend is OPENVINO else "onnxruntime")
    run = backend.load(model, 1)
    for n in (2, 5):
        x, i = longer(X, n), np.arange(n, dtype=np.int32)
        y, j = run(x, i)
        np.testing.assert_allclose(y, x.sum(-1, keepdims=True).repeat(3, -1), 1e-5)
        np.testing.assert_array_equal(j, i + 1)


@BACKENDS
@pytest.mark.filterwarnings("ignore:os.fork")
def test_what_does_not_fit_is_refused(model, backend):
    pytest.importorskip("openvino" if backend is OPENVINO else "onnxruntime")
    run, i = backend.load(model, None), np.arange(2, dtype=np.int32)
    with pytest.raises(ValueError, match=r"has 2 inputs \('x0', 'x1'\), got 1 arrays"):
        run(X)
    with pytest.raises(ValueError, match=r"'x1' takes an array of int32 .*, got int64"):
        run(X, i.astype(np.int64))
    with pytest.raises(ValueError, match=r", 4, 6\], got float32 \[2, 4, 5\]"):
        run(X[..., 1:], i)
    with pytest.raises(ValueError, match=r"got float32 \[4, 6\]"):
        run(X[0], i)
    for damaged in (model[: len(model) // 2], b"no model"):
        with pytest.raises(ValueError, match="Is it damaged, or not an .onnx file"):
            backend.load(damaged, None)


def test_values_of_16_bits():
    def fn(p, x, h):
        y = jnp.tanh(x) @ p["w"]
        return y, h * 2, x.mean()

    x = jnp.asarray(X, jnp.bfloat16)
    h = X.astype(np.float16)
    params = {"w": jnp.ones((6, 3), jnp.bfloat16)}
    model, _, differences = exported(fn, params, x, h)
    compare(fn, params, model, x, h, rtol=0.02, atol=0.02)
    assert "16-bit floats are computed in float32" in differences
    assert onnx.load_from_string(model).graph.output[1].type.tensor_type.elem_type == 10


def test_narrow_inputs_and_outputs_keep_their_dtype():
    images = np.random.default_rng(0).integers(0, 256, (2, 5)).astype(np.uint8)
    fn = lambda p, x: ((x / 255.0), x + x, x[:, 1:] > 7)  # noqa: E731
    model, _, _ = exported(fn, {}, images)
    compare(fn, {}, model, images)


def test_emitting_leaves_the_graph_as_it_was():
    graph = graph_of(lambda p, x: jax.nn.softmax(x), {}, X)
    before = [dataclasses.replace(op) for op in graph.operations]
    emit(graph)
    assert [op.primitive for op in before] == [op.primitive for op in graph.operations]


def test_inputs_without_readers_stay_inputs():
    def fn(p, x, unused):
        return x + 1

    i = np.arange(2, dtype=np.int32)
    model, _, _ = exported(fn, {}, X, i)
    compare(fn, {}, model, X, i)


def test_names_are_never_empty_or_double():
    graph = graph_of(lambda p, x: (x, x + 1, x + 2), {}, X)
    graph.input_names, graph.output_names = ["0"], ["", "0", "0"]
    model = emit(graph).model
    assert [x.name for x in model.graph.input] == ["0"]
    names = [x.name for x in model.graph.output]
    assert names == ["output", "output/0", "output/0_1"]
    compare(lambda p, x: (x, x + 1, x + 2), {}, model.SerializeToString(), X)
