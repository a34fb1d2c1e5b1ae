# SPDX-License-Identifier: Apache-2.0
"""What cannot be exported gets one clear error, and no file."""

import dataclasses
import importlib.util
import os

import jax
import jax.numpy as jnp
import pytest
from exported import built, quantized

import jaxcompress as jc
from jaxcompress import export
from jaxcompress.export._export import export as export_with
from jaxcompress.export._litert import LITERT
from jaxcompress.export._onnx import ONNX
from jaxcompress.program.dataflow import Constant

RUNTIMES = {
    "litert": (LITERT, "litert_converter", "LiteRT"),
    "onnx": (ONNX, "onnxruntime", "ONNX Runtime"),
}
X = jnp.arange(12.0).reshape(3, 4) / 7
W = {"w": jax.random.normal(jax.random.key(0), (4, 8))}


def dense(params, x):
    return x @ params["w"]


@pytest.fixture(params=RUNTIMES)
def runtime(request, tmp_path):
    """Name, backend, name in texts, and a path for a file."""
    backend, package, text = RUNTIMES[request.param]
    if not importlib.util.find_spec(package):
        pytest.skip(f"needs the extra {request.param}")
    return request.param, backend, text, tmp_path / f"a{backend.suffix}"


def is_untouched(path):
    return not path.exists() and not list(path.parent.iterdir())


def no_branch(p, x):
    return jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x @ p["w"])


HOSTILE = {
    "closed over": (lambda p, x: x @ W["w"], {}, export.ExportError, "closes over"),
    "unknown operation": (
        lambda p, x: jnp.abs(jnp.fft.fft(x @ p["w"])), W, export.UnsupportedOperation,
        r"fft",
    ),
    "branch": (
        no_branch, W, export.UnsupportedOperation, "a branch .* depends on the data",
    ),
    "NaN weight": (dense, {"w": W["w"] * jnp.nan}, ValueError, "'w' holds NaN"),
    "NaN result": (
        lambda p, x: jnp.log(-(x @ p["w"]) ** 2 - 1), W, export.ExportError,
        "the function gives NaN or infinity on the example",
    ),
    "swapped": (W, dense, TypeError, r"export\.\w+\(fn, params, ranges, example, path\)"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_functions_get_one_clear_error_and_no_file(runtime, case):
    name, _, _, path = runtime
    fn, params, error, text = HOSTILE[case]
    with pytest.raises(error, match=text):
        getattr(export, name)(fn, params, None, X, path)
    assert is_untouched(path)


def test_ranges_that_were_never_calibrated_or_mean_something_else_are_refused(runtime):
    name, _, text, path = runtime
    exporter = getattr(export, name)
    modes = jc.quantize_activations(dense, export.targets.litert.policy)
    with pytest.raises(export.UnsupportedOperation, match="calibrate it on real data"):
        exporter(dense, W, modes.init(W, X), X, path)
    _, ranges = modes.calibrate(W, modes.init(W, X), X)
    with pytest.raises(ValueError, match="there is state for 'v/output'"):
        exporter(dense, W, ranges | {"v/output": ranges["w/output"]}, X, path)
    four = jc.program.everywhere(jc.program.ActivationQuantizer(jc.formats.Int(4)))
    with pytest.raises(
        export.ExportError, match=f"{text} stores activations of 8 bits"
    ):
        exporter(dense, W, ranges, X, path, policy=four)
    learned = jc.program.everywhere(
        jc.program.ActivationQuantizer(
            jc.formats.Int(8, symmetric=False), jc.quantize.scales.lsq_plus()
        )
    )
    modes = jc.quantize_activations(dense, learned)
    _, ranges = modes.calibrate(W, modes.init(W, X), X)
    with pytest.raises(export.ExportError, match="made with another policy than that"):
        exporter(dense, W, ranges, X, path)
    assert is_untouched(path)
    assert exporter(dense, W, ranges, X, path, policy=learned).bytes


def test_paths_that_cannot_be_written_are_refused_first(runtime):
    name, backend, _, path = runtime

    def fn(params, x):
        raise AssertionError("traced before the path was checked")

    with pytest.raises(ValueError, match=rf"must end in '\{backend.suffix}', got"):
        getattr(export, name)(fn, W, None, X, path.with_suffix(".bin"))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        getattr(export, name)(fn, W, None, X, path.parent / "b" / path.name)
    if os.geteuid() != 0:  # root writes anywhere
        path.parent.chmod(0o500)
        with pytest.raises(PermissionError, match="is not writable"):
            getattr(export, name)(fn, W, None, X, path)


def test_a_failed_export_leaves_the_old_file(runtime):
    name, _, _, path = runtime
    getattr(export, name)(dense, W, None, X, path)
    before = path.read_bytes()
    with pytest.raises(export.UnsupportedOperation):
        getattr(export, name)(no_branch, W, None, X, path)
    assert path.read_bytes() == before


def test_a_runtime_that_computes_something_else_is_found_at_its_first_point(runtime):
    _, backend, _, path = runtime
    fn, params, x = built("residual")
    packed, ranges = quantized(fn, params, x, export.targets.litert.policy)

    def wrong(graph):
        products = [op for op in graph.operations if op.primitive.startswith("conv")]
        weight = products[1].ins[1]
        assert isinstance(weight, Constant) and weight.codes is not None
        codes = dataclasses.replace(weight.codes, scale=weight.codes.scale * 1.3)
        products[1].ins[1] = Constant(codes.dense(), codes, weight.leaf)
        content = backend.convert(graph)
        products[1].ins[1] = weight
        return content

    with pytest.raises(
        export.Mismatch, match="first point that differs is 'params/Conv_1"
    ):
        export_with(
            dataclasses.replace(backend, convert=wrong), export.targets.litert,
            fn, packed, ranges, (x,), path, None, None,
        )  # fmt: skip
    assert is_untouched(path)
