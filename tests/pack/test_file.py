# SPDX-License-Identifier: Apache-2.0
"""Trees that come back from a file, and those that could not and are refused."""

import dataclasses
import os
import sys
from collections import OrderedDict, namedtuple
from pathlib import Path

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import version_1
from bitwise import same_tree
from examples import examples
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, strategies as st
from safetensors import safe_open
from trees import assert_same, small_tree

import jaxcompress as jc
from jaxcompress import formats, pack
from jaxcompress.pack import ArtifactError

DTYPES = (
    *("bool", "int4", "uint4", "int8", "int16", "int32", "uint8", "uint16", "uint32"),
    *("float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2"),
)


@st.composite
def arrays(draw, dtypes=DTYPES, shapes=None):
    """Any bit patterns, so also NaN payloads, -0.0 and subnormals; often many zeros."""
    dtype = np.dtype(
        getattr(jnp, draw(st.sampled_from(dtypes)).replace("bool", "bool_"))
    )
    if shapes is None:
        shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
    shape = draw(shapes)
    if dtype.name in ("bool", "int4", "uint4"):
        return draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1))).astype(
            dtype
        )
    patterns = np.dtype(f"u{dtype.itemsize}")
    some = st.integers(0, np.iinfo(patterns).max) | st.just(0)
    return draw(hnp.arrays(patterns, shape, elements=some)).view(dtype)


MATRICES = hnp.array_shapes(min_dims=2, max_dims=2, max_side=6)


KINDS = ["QArray", "Codebook", "LowRank", "SparseArray", "PackedCodes"]
FORMATS = st.builds(formats.Int, st.integers(1, 8), st.booleans()) | st.sampled_from(
    [
        formats.E2M1,
        formats.E4M3,
        formats.BF16,
        formats.NF4,
        formats.Int(4, narrow=False),
    ]
)


@st.composite
def quantized(draw, shape):
    fmt = draw(FORMATS)
    codes = draw(arrays((fmt.dtype.name,), st.just(shape)))
    if np.issubdtype(codes.dtype, np.integer):
        last = (
            15
            if isinstance(fmt, formats.Float)
            else len(getattr(fmt, "values", ())) - 1
        )
        low, high = (fmt.low, fmt.high) if isinstance(fmt, formats.Int) else (0, last)
        codes = (low + codes.astype(int) % (high - low + 1)).astype(codes.dtype)
    tiles = st.sampled_from([shape, (1,) * len(shape)])
    scale = draw(arrays(("float32", "bfloat16"), tiles))
    return jc.QArray(
        codes=codes,
        scale=scale,
        zero_point=draw(st.none() | arrays(("int8",), st.just(scale.shape))),
        format=fmt,
        value_dtype=np.dtype(draw(st.sampled_from(["float32", "bfloat16"]))),
    )


@st.composite
def compressed(draw):
    kind = draw(st.sampled_from(KINDS))
    shape = draw(MATRICES)
    if kind == "PackedCodes":
        codes = draw(arrays(("uint8",), st.just(shape))) & jnp.uint8(15)
        return jc.PackedCodes.of(codes, 4)
    if kind == "SparseArray":
        return jc.SparseArray.from_dense(jnp.asarray(draw(arrays(("float32", "int8")))))
    if kind == "Codebook":
        values = hnp.array_shapes(min_dims=1, max_dims=1, max_side=6)
        centroids = jnp.asarray(np.sort(draw(arrays(("float32", "bfloat16"), values))))
        codes = draw(arrays(("uint8", "uint16"))) % len(centroids)
        return jc.Codebook(codes=codes, centroids=centroids)
    if kind == "LowRank":
        factors = (
            draw(arrays(("float32",), st.just(part)) | quantized(part))
            for part in (shape, shape[::-1])
        )
        return jc.LowRank(**dict(zip(("left", "right"), factors, strict=True)))
    return draw(quantized(shape))


KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
TREES = st.recursive(
    arrays() | compressed() | st.none(),
    lambda parts: (
        st.dictionaries(KEYS, parts, max_size=3)
        | st.lists(parts, max_size=3)
        | st.lists(parts, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


@examples(200)
@given(tree=TREES)
def test_loading_inverts_saving(path, tree):
    size = pack.save(path, tree)
    assert size == os.stat(path).st_size
    assert_same(pack.load(path), tree)


@given(tree=TREES)
def test_equal_trees_make_equal_files(path, tree):
    pack.save(path, tree)
    data = path.read_bytes()
    pack.save(path, pack.load(path))
    assert path.read_bytes() == data


def test_the_order_of_keys_makes_no_difference(path):
    x, y = jnp.ones(2), jnp.zeros(3)
    pack.save(path, {"b": y, "a": x})
    data = path.read_bytes()
    pack.save(path, {"a": x, "b": y})
    assert path.read_bytes() == data


def test_bits_that_comparisons_do_not_see(path):
    bits = np.array([0x7FC00123, 0xFF800001, 0x80000000, 1, 0], np.uint32)
    pack.save(path, bits.view(np.float32))
    assert np.asarray(pack.load(path)).view(np.uint32).tolist() == bits.tolist()


def test_wide_arrays_are_exact_with_and_without_x64(path):
    """Counters of torch checkpoints, such as num_batches_tracked, are int64."""
    tree = {"w": np.array([1e300, -0.0]), "n": np.array(2**60), "k": jnp.ones(2)}
    pack.save(path, tree)
    loaded = pack.load(path, like=tree)
    same_tree(loaded, tree)
    assert isinstance(loaded["n"], np.ndarray) and isinstance(loaded["k"], jax.Array)
    with jax.enable_x64(True):
        assert isinstance(pack.load(path)["n"], jax.Array)
        assert_same(pack.load(path), tree)
        leaf = {
            "w": jc.quantize.to_qarray(
                jnp.ones((2, 2), jnp.float64), formats.Int(8), scale_shape=(1, 2)
            )
        }
        leaf["w"] = dataclasses.replace(leaf["w"], scale=jnp.ones((1, 2), jnp.float64))
        pack.save(path, leaf)
    with pytest.raises(ArtifactError, match="tensor 'w': float64 needs .*enable_x64"):
        pack.load(path)
    with pytest.raises(ValueError, match="cannot save leaf 'w': float64 needs .*x64"):
        pack.save(path, leaf)


def test_containers_come_back_plain(path):
    x = jnp.ones(2)
    pack.save(path, FrozenDict(a=OrderedDict(b=x), c=np.float32(1.5)))
    assert_same(pack.load(path), {"a": {"b": x}, "c": jnp.float32(1.5)})


def test_big_endian_arrays_come_back_native(path):
    pack.save(path, np.arange(5, dtype=">i4"))
    assert_same(pack.load(path), jnp.arange(5))


def test_any_reader_of_safetensors_opens_the_file(path):
    tree = small_tree() | {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}
    pack.save(path, tree)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"jaxcompress": '{"version":2}'}
        assert sum(file.get_tensor(name).size for name in file.keys()) > 0
    assert_same(pack.load(path), tree)


def test_files_of_the_first_layout_are_read():
    path = Path(__file__).parent / "version_1.safetensors"
    with safe_open(path, framework="numpy") as file:
        assert {"Dense_0/bias", "a/b", "a/b'"} <= set(file.keys())
    tree = version_1.tree()
    assert_same(pack.load(path), tree)
    assert_same(
        pack.load_leaves(path, "a/b"), {"a/b'": tree["a/b"], "a/b": tree["a"]["b"]}
    )
    paths = [entry.path for entry in pack.stream(path)]
    assert paths == [entry.path for entry in pack.inspect(path).entries]
    assert pack.verify(path) == len(paths) == 10


def network(layers, width):
    """Layers as of Flax, with few values: what is left is what names and shapes cost."""
    kernel = (np.arange(9 * width * width).reshape(3, 3, width, width) % 5 - 2) / 2.0
    quantizer = jc.weight_quantization(bits=4, granularity=jc.PerTensor())
    kernel = jc.compress(quantizer, {"kernel": kernel.astype(np.float32)})
    norm = {k: np.zeros(width, np.float32) for k in ("bias", "mean", "scale", "var")}
    block = {f"Conv_{i}": kernel for i in range(2)} | {"BatchNorm_0": norm}
    return {f"Block_{i}": block for i in range(layers)}


@pytest.mark.parametrize(("layers", "most"), [(1, 400), (16, 1000)])
def test_names_and_shapes_cost_little(path, layers, most):
    """What they may cost of 8 and of 50 kB, for 6 and for 96 leaves."""
    size = pack.save(path, network(layers, 8))
    entries = pack.inspect(path).entries
    assert len(entries) == 6 * layers
    assert size - sum(entry.nbytes for entry in entries) < most


def test_inspect_lists_the_leaves_and_their_codecs(path):
    size = pack.save(path, small_tree())
    contents = pack.inspect(path)
    assert contents.file_bytes == size
    assert [(e.path, e.kind, len(e.codecs)) for e in contents.entries] == [
        ("Dense_0/bias", "array", 1),
        ("Dense_0/kernel", "QArray", 2),
        ("rest/1/0", "array", 1),
    ]


# --- trees that are saved by path ---------------------------------------------------


Pair = namedtuple("Pair", ["left", "right"])


def nnx_state():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.layers = nnx.List([nnx.Linear(3, 4, rngs=rngs) for _ in range(2)])

    return nnx.state(Net(nnx.Rngs(0)))


@pytest.mark.parametrize(
    "make",
    [
        nnx_state,
        lambda: eqx.filter(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array),
        lambda: {"x": Pair(jnp.ones(2), small_tree()["Dense_0"]["kernel"])},
    ],
    ids=["State", "MLP", "Pair"],
)
def test_other_pytrees_come_back_with_like(path, make, request):
    tree = make()
    pack.save(path, tree)
    assert_same(pack.load(path, like=tree), tree)
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"a {name} in it.*Pass like="):
        pack.load(path)


def test_like_may_hold_shapes_only_and_other_containers(path):
    tree = {"a": small_tree()["Dense_0"]["kernel"], "b": jnp.ones(3)}
    pack.save(path, tree)
    like = FrozenDict(
        a=jax.ShapeDtypeStruct((24, 10), jnp.float32), b=jnp.zeros(3, jnp.int8)
    )
    assert_same(pack.load(path, like=like), FrozenDict(tree))


def test_like_names_what_does_not_fit(path):
    pack.save(path, {"a": jnp.ones((2, 3)), "b": jnp.ones(1)})
    with pytest.raises(
        ValueError, match="'c' is not in the file; 'b' is only in the file"
    ):
        pack.load(path, like={"a": jnp.ones((2, 3)), "c": jnp.ones(1)})
    with pytest.raises(
        ValueError, match=r"'a' has shape \(2, 3\) in the file and \(3, 2\) in like="
    ):
        pack.load(path, like={"a": jnp.ones((3, 2)), "b": jnp.ones(1)})


def test_paths_that_cannot_be_told_apart_are_refused(path):
    tree = {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}
    with pytest.raises(ValueError, match="same path text"):
        pack.save(path, Pair(tree, None))


# --- what cannot be saved -----------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "error", "text"),
    [
        (
            {"a": {1: jnp.ones(1)}},
            TypeError,
            "keys must be strings, the dict at 'a' has the key 1",
        ),
        ({"\ud800": jnp.ones(1)}, ValueError, "is not valid text"),
        (
            {"step": 3},
            TypeError,
            "leaf 'step': leaves must be arrays, got int.*jnp.asarray",
        ),
        ({"act": jax.nn.relu}, TypeError, "leaf 'act': .*eqx.filter"),
        ({"key": jax.random.key(0)}, TypeError, "leaf 'key': .*jax.random.key_data"),
        ({"z": jnp.ones(1, complex)}, ValueError, "leaf 'z': dtype complex64 cannot"),
        ({"s": np.array(["a"])}, ValueError, "leaf 's': dtype str.* cannot be saved"),
    ],
)
def test_what_could_not_come_back_is_refused(path, tree, error, text):
    with pytest.raises(error, match=text):
        pack.save(path, tree)


def test_traced_arrays_are_refused(path):
    with pytest.raises(TypeError, match="save outside jit"):
        jax.jit(lambda x: pack.save(path, {"x": x}))(jnp.ones(2))


def test_a_missing_library_names_the_fix(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    pack.save(path, {})
    with pytest.raises(ImportError, match="pip install 'safetensors"):
        pack.load(path)


def test_contents_print_as_a_table(tmp_path):
    path = tmp_path / "net"
    pack.save(path, {"a": jnp.ones((2, 3)), "b": jnp.ones(())})
    head, a, b, other, whole = str(pack.inspect(path)).splitlines()
    assert head.split() == ["leaf", "kind", "shape", "codecs", "bytes"]
    assert a.split()[:3] == ["a", "array", "2x3"] and b.split()[2] == "scalar"
    stored = [int(line.split()[-1].replace(",", "")) for line in (a, b, other, whole)]
    assert sum(stored[:3]) == stored[3] == path.stat().st_size
