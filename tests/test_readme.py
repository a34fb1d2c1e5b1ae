# SPDX-License-Identifier: Apache-2.0
"""Every Python block of the README runs, in order, and does what its text says."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# LiteRT's packages need an environment of their own; continuous integration has one.
HAS_LITERT = bool(importlib.util.find_spec("litert_converter"))


def blocks():
    return re.findall(r"```python\n(.*?)```", README, re.S)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    # A user's own code may promote ranks; ours, which it calls, is tested without.
    allow = jax.numpy_rank_promotion("allow")
    with pytest.MonkeyPatch.context() as patch, allow:
        patch.chdir(folder)
        scope = {"__name__": "readme"}
        for number, block in enumerate(blocks()):
            if "jc.export.litert" in block and not HAS_LITERT:
                continue
            exec(compile(block, f"README block {number}", "exec"), scope)
    return scope, folder


def test_there_are_nine_examples_and_what_they_share():
    assert len(blocks()) == 10


@pytest.mark.slow
def test_the_file_by_rate_is_the_smallest(names):
    _, folder = names
    sizes = {f.name: f.stat().st_size for f in folder.glob("*.safetensors")}
    assert min(sizes, key=lambda name: sizes[name]) == "mlp-by-rate.safetensors"


@pytest.mark.slow
def test_pruning_learns_and_prunes(names):
    scope, _ = names
    kernel = scope["sparse"]["Dense_0"]["kernel"]
    assert int((kernel == 0).sum()) == round(0.9 * kernel.size)
    loss = scope["cross_entropy"]
    assert loss(scope["sparse"], scope["batch"]) < loss(scope["params"], scope["batch"])


@pytest.mark.slow
def test_the_narrow_network_is_small_and_computes_what_the_masked_one_does(names):
    scope, _ = names
    jc, plan = scope["jc"], scope["plan"]
    assert (
        scope["groups"].macs()
        >= 2 * jc.count(scope["narrow_forward"], scope["narrow"], scope["x"]).macs
    )
    masked = jc.structured.mask_params(scope["trained"], plan)
    wanted = scope["forward"](masked, scope["x"])
    np.testing.assert_allclose(
        scope["narrow_forward"](scope["narrow"], scope["x"]), wanted, atol=1e-4
    )


@pytest.mark.slow
def test_the_files_hold_what_was_trained(names):
    scope, folder = names
    small = jc.load(folder / "mlp-small.safetensors")
    q = small["Dense_0"]["kernel"]
    assert isinstance(q, jc.QArray) and q.bits == 4
    assert int((q.codes == 0).sum()) >= round(0.9 * q.codes.size)
    state = scope["state"]
    view = scope["small"].apply(state.params, state.compression)
    jax.tree.map(np.testing.assert_array_equal, jc.dense(small), view)
    int8 = jc.load(folder / "mlp-int8.safetensors")
    assert int8["Dense_0"]["kernel"].bits == 8
    exact = scope["model"].apply({"params": scope["trained"]}, scope["x"])
    assert jnp.abs(scope["logits"] - exact).max() < 0.05 * jnp.abs(exact).max()


@pytest.mark.skipif(not HAS_LITERT, reason="needs the extra litert")
@pytest.mark.slow
def test_the_phone_and_the_pc_compute_what_was_trained(names):
    scope, folder = names
    jc, x = scope["jc"], scope["x"]
    exact = scope["model"].apply({"params": scope["trained"]}, x)
    (pc,) = jc.export.run(folder / "mlp.onnx", x)
    for out in (scope["phone"], pc):
        assert np.abs(out - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
def test_weights_and_activations_train_together(names):
    scope, _ = names
    state, batch = scope["w8a8"], scope["batch"]
    # Linen numbers layers as they are made: the one inside is Dense_1, and what it gives
    # is read by Dense_0 behind a ReLU.
    low, high, count = state.model_state["Dense_0/kernel/input"]
    assert low == 0 and high > 0 and count == len(scope["batches"])
    assert set(state.model_state) == {f"Dense_{i}/kernel/input" for i in range(2)}
    view = jc.weight_quantization(bits=8).apply(state.params, state.compression)
    logits, _ = scope["quantized"].frozen(view, state.model_state, batch["x"])
    assert jnp.mean(jnp.argmax(logits, -1) == batch["y"]) > 0.95


@pytest.mark.slow
def test_one_compilation(names):
    assert names[0]["step"]._cache_size() == 1


def test_the_third_partys_technique_is_short():
    own = blocks()[-1].strip().splitlines()
    assert len(own) <= 25


@pytest.mark.parametrize(
    "command", ["python -m research.deep_compression", "&& pytest"]
)
def test_the_two_commands_are_there(command):
    assert command in README


def test_links_lead_somewhere():
    for text in ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", (ROOT / text).read_text()):
            assert (ROOT / link).exists(), link
