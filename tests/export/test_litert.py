# SPDX-License-Identifier: Apache-2.0
"""LiteRT computes what was trained."""

import jax
import numpy as np
import pytest
from draws import normal, put
from exported import NETWORKS, built, quantized

import jaxcompress as jc
from jaxcompress import export

pytest.importorskip("litert_converter")
pytest.importorskip("ai_edge_litert")

POLICY = export.targets.litert.policy


@pytest.fixture(scope="module")
def networks():
    """Functions, variables and examples; packed weights and ranges, by network."""

    def make(name):
        fn, params, x = built(name)
        return fn, params, x, *quantized(fn, params, x, POLICY)

    made = {}

    def get(name):
        if name not in made:
            made[name] = make(name)
        return made[name]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_runs_on_floats(networks, tmp_path, name):
    fn, params, x, _, _ = networks(name)
    path = tmp_path / "float.tflite"
    exported = export.litert(fn, params, None, (x,), path)
    assert exported.bytes == path.stat().st_size and not exported.integers
    for a, b in zip(export.run(path, x), jax.tree.leaves(fn(params, x)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4 * float(np.abs(b).max()))


FLOAT = {
    "unet": {"params/ConvTranspose_0/kernel"},
    "encoder": {  # scores and what they mix
        f"Encoder/MultiHeadDotProductAttention_0/{subscripts}/dot_general"
        for subscripts in ("...qhd,...khd->...hqk", "...hqk,...khd->...qhd")
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_runs_on_integers(networks, tmp_path, name):
    fn, params, x, packed, ranges = networks(name)
    path = tmp_path / "integer.tflite"
    exported = export.litert(fn, packed, ranges, (x,), path)
    assert set(exported.floats) == FLOAT.get(name, set()) and exported.integers
    assert not exported.notes
    frozen = jc.quantize_activations(fn, POLICY).frozen
    expected, _ = jax.jit(frozen)(jc.dense(packed), ranges, x)
    for a, b in zip(export.run(path, x), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= exported.check.error * 1.01 + 1e-6
        assert np.abs(a - b).max() < 0.05 * np.abs(b).max()


def test_a_convolutional_network_is_all_integers_up_to_one_step(networks, tmp_path):
    fn, params, x, packed, ranges = networks("residual")
    exported = export.litert(fn, packed, ranges, (x,), tmp_path / "a.tflite")
    assert exported.check.rule == "within one step of the rounded result"
    assert exported.operators == {
        "QUANTIZE int8": 1, "CONV_2D int8": 4, "ADD int8": 1, "MEAN int8": 1,
        "FULLY_CONNECTED int8": 1, "DEQUANTIZE float32": 1,
    }  # fmt: skip
    assert "5 of 5 products run on integers" in str(exported)
    assert len(str(exported).splitlines()) < 8


def test_a_file_takes_any_number_of_rows(networks, tmp_path):
    fn, params, x, _, _ = networks("mobile")
    path = tmp_path / "a.tflite"
    exported = export.litert(fn, params, None, (x,), path)
    assert exported.batch == len(x)
    rows = jax.random.normal(jax.random.key(3), (5, *x.shape[1:]))
    for a, b in zip(
        export.run(path, rows), jax.tree.leaves(fn(params, rows)), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("name", ["encoder", "mobile", "lstm"])
def test_products_round_their_inputs_on_the_fly_if_nothing_was_calibrated(
    networks, tmp_path, name
):
    fn, params, x, packed, _ = networks(name)
    path = tmp_path / "a.tflite"
    exported = export.litert(fn, packed, None, (x,), path, dynamic_range=True)
    plain = export.litert(fn, packed, None, (x,), tmp_path / "b.tflite")
    assert exported.integers and not plain.integers
    assert "DEQUANTIZE float32" not in exported.operators
    exact = jax.tree.leaves(fn(jc.dense(packed), x))
    for a, b in zip(export.run(path, x), exact, strict=True):
        assert 1e-6 < np.abs(a - b).max() < 0.05 * np.abs(b).max()
    with pytest.raises(ValueError, match="dynamic_range=True needs ranges=None"):
        export.litert(fn, packed, {}, (x,), path, dynamic_range=True)


def dense(params, x):
    return x @ params["w"]


X = put(np.arange(12.0).reshape(3, 4) / 7)
W = {"w": normal(4, 8)}


def packed_by(**kwargs):
    policy = POLICY
    compressor = jc.weight_quantization(where="w", **kwargs)
    modes = jc.quantize_activations(dense, policy)
    _, ranges = modes.calibrate(W, modes.init(W, X), X)
    return jc.compress(compressor, W), ranges


@pytest.mark.parametrize(
    ("kwargs", "why"),
    [
        ({"bits": 3}, ""),
        ({"bits": 4, "granularity": jc.quantize.PerTensor()}, ""),
        ({"bits": 8, "symmetric": False}, "LiteRT's weights have no zero point"),
        ({"bits": 16}, "16 bits"),
        (
            {"bits": 8, "granularity": jc.quantize.PerGroup(2)},
            "its scales belong to groups",
        ),
    ],
)
def test_weights_that_litert_cannot_store_are_exact_floats_with_a_reason(
    tmp_path, kwargs, why
):
    params, ranges = packed_by(**kwargs)
    exported = export.litert(dense, params, ranges, X, tmp_path / "a.tflite")
    if why:
        assert why in exported.floats["w"]
        assert "FULLY_CONNECTED float32" in exported.operators
    else:
        assert exported.integers == ("w",)
    assert exported.check.error <= 1e-6 or "one step" in exported.check.rule


def test_grids_that_an_operator_prescribes_are_kept_apart_from_those_of_training(
    networks, tmp_path
):
    fn, params, x, packed, _ = networks("encoder")
    everywhere = jc.program.everywhere()
    _, ranges = quantized(fn, params, x, everywhere)
    exported = export.litert(
        fn, packed, ranges, (x,), tmp_path / "a.tflite", policy=everywhere
    )
    assert not exported.floats
    assert any(name.startswith("SOFTMAX int8") for name in exported.operators)


def test_points_without_ranges_stay_floats_and_are_named(networks, tmp_path):
    fn, params, x, packed, _ = networks("residual")
    _, ranges = quantized(fn, params, x, jc.program.operands_only())
    exported = export.litert(fn, packed, ranges, (x,), tmp_path / "a.tflite")
    assert len(exported.floats) == 4 and len(exported.integers) == 1
    assert any("have no range and stay floats" in note for note in exported.notes)


def test_a_shrunk_function_is_exported_like_any_other(networks, tmp_path):
    fn, params, x, _, _ = networks("residual")
    groups = jc.structured.trace_axes(fn, params, x)
    scores = jc.structured.scores.l1(groups, params)
    plan = jc.structured.select(groups, scores, jc.structured.budgets.channels(0.5))
    small, sliced = (
        jc.structured.shrink(fn, plan),
        jc.structured.slice_params(params, plan),
    )
    packed, ranges = quantized(small, sliced, x, POLICY)
    exported = export.litert(small, packed, ranges, (x,), tmp_path / "a.tflite")
    assert len(exported.integers) == 5


def test_ranges_of_another_policy_are_refused(networks, tmp_path):
    fn, params, x, packed, _ = networks("gru")
    _, ranges = quantized(fn, params, x, jc.program.everywhere())
    with pytest.raises(
        export.ExportError, match="made with another policy than that of"
    ):
        export.litert(fn, packed, ranges, (x,), tmp_path / "a.tflite")


def test_damaged_files_and_wrong_arrays_are_refused(tmp_path):
    path = tmp_path / "a.tflite"
    export.litert(dense, W, None, X, path)
    with pytest.raises(ValueError, match="1 inputs, got 2 arrays"):
        export.run(path, X, X)
    with pytest.raises(ValueError, match=r"float32 \[3, 4\] \(any number of rows\)"):
        export.run(path, X[:, :2])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged, or not a .tflite file"):
        export.run(path, X)
    with pytest.raises(ValueError, match="must end in one of"):
        export.run(tmp_path / "a.txt", X)
