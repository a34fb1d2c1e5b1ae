# SPDX-License-Identifier: Apache-2.0
"""What cannot be exported gets one clear error, and no file."""

import dataclasses
import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
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
X = put(np.arange(12.0).reshape(3, 4) / 7)
W = {"w": normal(4, 8)}


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


def test_arguments_in_another_order_or_of_another_kind_are_named(runtime):
    name, _, _, path = runtime
    exporter = getattr(export, name)
    order = rf"The order is export\.{name}\(fn, params, ranges, example, path\)"
    with pytest.raises(TypeError, match=f"path must be a path, got a tuple. {order}"):
        exporter(dense, W, None, str(path), (X,))
    with pytest.raises(TypeError, match=f"ranges must be the dict .* {order}"):
        exporter(dense, W, (X,), None, path)
    with pytest.raises(ValueError, match="ranges must not be empty; pass None"):
        exporter(dense, W, {}, X, path)
    with pytest.raises(TypeError, match="must be a tuple of arguments"):
        exporter(dense, W, None, [X], path)
    with pytest.raises(ValueError, match=r"must have rows .* got shape \(0, 4\)"):
        exporter(dense, W, None, X[:0], path)
    with pytest.raises(ValueError, match="tolerance must be at least 0, got -1"):
        exporter(dense, W, None, X, path, tolerance=-1)
    with pytest.raises(TypeError, match="'key' is a random key"):
        exporter(dense, W | {"key": jax.random.key(0)}, None, X, path)
    with pytest.raises(TypeError, match="'name' is a str"):
        exporter(dense, W | {"name": "a"}, None, X, path)
    with pytest.raises(export.ExportError, match="it returns nothing"):
        exporter(lambda p, x: None, W, None, X, path)
    assert is_untouched(path)
    exporter(dense, W, None, X, path)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        export.load(path, threads=0)
    with pytest.raises(TypeError, match=r"one of export\.targets.* got 'openvino'"):
        export.load(path, target="openvino")  # pyright: ignore[reportArgumentType]


def test_numbers_of_64_bits_and_no_rows_are_taken_as_jax_takes_them(runtime):
    name, _, _, path = runtime
    wide = np.asarray(X, np.float64)
    getattr(export, name)(dense, W, None, wide, path)
    np.testing.assert_allclose(export.run(path, wide)[0], dense(W, X), atol=1e-5)
    assert export.run(path, X[:0])[0].shape == (0, 8)


def test_rows_that_depend_on_each_other_are_not_run_apart(runtime):
    name, backend, _, path = runtime

    def centered(params, x):
        y = x @ params["w"]
        return y - y.max(0, keepdims=True)

    rows = jnp.concatenate([X, 3 * X])
    exported = getattr(export, name)(centered, W, None, X, path)
    if backend.any_batch:
        out = export.run(path, rows)[0]
        np.testing.assert_allclose(out, centered(W, rows), atol=1e-5)
        return
    assert any("depends on the other rows" in note for note in exported.notes)
    np.testing.assert_allclose(export.run(path, X)[0], centered(W, X), atol=1e-5)
    with pytest.raises(
        ValueError, match="takes 3 rows, got 6: a row of its results dep"
    ):
        export.run(path, rows)


def test_random_numbers_are_constants_with_a_note(runtime):
    name, _, _, path = runtime

    def noisy(params, x):
        return x @ params["w"] + jax.random.normal(jax.random.key(0), (1, 8))

    exported = getattr(export, name)(noisy, W, None, X, path)
    assert any("drew random numbers" in note for note in exported.notes)


def test_dense_weights_between_rounded_activations_are_not_rounded(runtime):
    name, _, _, path = runtime
    policy = export.targets.litert.policy
    modes = jc.quantize_activations(dense, policy)
    _, ranges = modes.calibrate(W, modes.init(W, X), X)
    exported = getattr(export, name)(dense, W, ranges, X, path)
    assert exported.floats == {"w": "its weight is dense"}
    rows = jax.random.uniform(jax.random.key(1), (300, 4))
    expected, _ = modes.frozen(W, ranges, rows)
    step = np.diff(np.unique(np.asarray(expected))).min()
    off = np.abs(export.run(path, rows)[0] - expected)
    assert np.mean(off > step / 2) < 0.01


def test_a_mesh_that_is_set_changes_nothing(runtime):
    name, _, _, path = runtime
    mesh = jax.make_mesh((2,), ("d",))
    with jax.set_mesh(mesh):
        spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "d"))
        params = jax.device_put(W, spread)
        getattr(export, name)(
            lambda p, x: jax.nn.relu(dense(p, x)), params, None, X, path
        )
    expected = jax.nn.relu(dense(W, X))
    np.testing.assert_allclose(export.run(path, X)[0], expected, atol=1e-5)
