# SPDX-License-Identifier: Apache-2.0
"""A portable program computes what the function does, with nothing but its file."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal, put
from exported import built, quantized

import jaxcompress as jc
from jaxcompress import export

W = {"w": normal(4, 8), "b": put(np.ones((1, 8)))}
X = put(np.arange(12.0).reshape(3, 4) / 7)


def dense(params, x):
    return x @ params["w"] + params["b"]


LONG = [pytest.param(name, marks=pytest.mark.slow) for name in ("encoder", "gru")]


@pytest.mark.parametrize("name", ["residual", *LONG])
def test_files_run_in_a_fresh_process_without_the_model(tmp_path, name):
    fn, params, x = built(name)
    policy = jc.program.operands_only()
    packed, ranges = quantized(fn, params, x, policy)
    path = tmp_path / "a.stablehlo"
    exported = export.stablehlo(fn, packed, ranges, (x,), path, policy=policy)
    assert exported.batch is None and exported.bytes == path.stat().st_size
    frozen = jc.quantize_activations(fn, policy).frozen
    rows = jnp.concatenate([x, x, x[:1]])
    expected, _ = jax.jit(frozen)(jc.dense(packed), ranges, rows)
    np.save(tmp_path / "rows.npy", rows)
    script = (
        "import sys, numpy as np, jaxcompress as jc\n"
        "folder = sys.argv[1]\n"
        "outs = jc.export.run(folder + '/a.stablehlo', np.load(folder + '/rows.npy'))\n"
        "np.save(folder + '/out.npy', outs[0])\n"
        "print('flax' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), expected, atol=1e-5)


def test_the_weights_stay_packed_in_the_file(tmp_path):
    params = {"w": jax.random.normal(jax.random.key(0), (256, 256))}
    four = jc.compress(jc.weight_quantization(bits=4, where="w"), params)

    def fn(params, x):
        return x @ params["w"]

    x = jnp.ones((2, 256))
    small = export.stablehlo(fn, four, None, x, tmp_path / "a.stablehlo")
    large = export.stablehlo(fn, params, None, x, tmp_path / "b.stablehlo")
    assert small.bytes < 0.2 * large.bytes


def two_bits():
    return jc.compress(jc.weight_quantization(bits=2, where="w"), W)


LEAVES = {
    "QArray": two_bits,
    "PackedCodes": lambda: jc.pack_codes(two_bits()),
    "LowRank": lambda: jc.compress(jc.low_rank(rank=2, where="w"), W),
    "Codebook": lambda: jc.compress(jc.weight_sharing(4, where="w"), W),
    "SparseArray": lambda: jc.sparsify(W | {"w": W["w"] * (W["w"] > 1)}, where="w"),
}


@pytest.mark.parametrize("kind", LEAVES)
def test_every_kind_of_leaf_is_an_argument_of_exported_functions(kind):
    packed = LEAVES[kind]()
    exported = jax.export.export(jax.jit(lambda p, x: dense(jc.dense(p), x)))(packed, X)
    again = jax.export.deserialize(exported.serialize())
    np.testing.assert_allclose(
        again.call(packed, X), dense(jc.dense(packed), X), atol=1e-6
    )


def test_a_batch_that_cannot_vary_is_said(tmp_path):
    def fn(params, x):
        return jnp.stack([x[i] @ params["w"] for i in range(len(x))])

    exported = export.stablehlo(fn, W, None, X, tmp_path / "a.stablehlo")
    assert exported.batch == 3
    assert any("the batch is fixed" in note for note in exported.notes)


def test_hostile_files_and_functions_are_refused(tmp_path):
    path = tmp_path / "a.stablehlo"
    with pytest.raises(
        export.ExportError, match="gives NaN or infinity on the example"
    ):
        export.stablehlo(lambda p, x: dense(p, x) / 0, W, None, X, path)
    with pytest.raises(ValueError, match=r"must end in '\.stablehlo'"):
        export.stablehlo(dense, W, None, X, tmp_path / "a.bin")
    assert not path.exists()
    export.stablehlo(dense, W, None, X, path)
    with pytest.raises(ValueError, match="1 inputs, got 2 arrays"):
        export.run(path, X, X)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"damaged, or not a \.stablehlo file"):
        export.run(path, X)
