# SPDX-License-Identifier: Apache-2.0
import functools
import json
import os
import sys
import tempfile
import zlib
from collections import OrderedDict, namedtuple

import equinox as eqx
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, settings, strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

import jaxcompress as jc
from jaxcompress import pack
from jaxcompress.pack import ArtifactError

DTYPES = (
    *("bool", "int4", "uint4", "int8", "int16", "int32", "uint8", "uint16", "uint32"),
    *("float16", "bfloat16", "float32", "float8_e4m3fn", "float8_e5m2"),
)


def assert_same(tree, expected):
    """Same structure, static fields, dtypes, shapes, bits; every leaf a JAX array."""
    assert jax.tree.structure(tree) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(tree), jax.tree.leaves(expected), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


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


@st.composite
def compressed(draw, nested=True):
    kind = draw(st.sampled_from(["QArray", "Codebook", "LowRank", "SparseArray"]))
    if kind == "SparseArray":
        return jc.SparseArray.from_dense(jnp.asarray(draw(arrays(("float32", "int8")))))
    if kind == "Codebook":
        codes = draw(arrays(("uint8", "uint16")))
        return jc.Codebook(codes=codes, centroids=draw(arrays(("float32", "bfloat16"))))
    if kind == "LowRank" and nested:
        factors = arrays(("float32",), MATRICES) | compressed(nested=False)
        return jc.LowRank(left=draw(factors), right=draw(factors))
    return jc.QArray(
        codes=draw(arrays(("int8", "uint16"))),
        scale=draw(arrays(("float32",))),
        zero_point=draw(st.none() | arrays(("int8",))),
        bits=draw(st.integers(1, 16)),
        value_dtype=np.dtype(draw(st.sampled_from(["float32", "bfloat16"]))),
    )


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


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("pack") / "net.safetensors"


@functools.cache
def small_tree():
    w = jax.random.normal(jax.random.key(0), (24, 10))
    small = jc.chain(jc.magnitude_pruning(0.7), jc.weight_quantization(bits=4))
    leaf = jc.compress(small, {"kernel": w})["kernel"]
    return {"Dense_0": {"bias": jnp.arange(3.0), "kernel": leaf}, "rest": [None, (w,)]}


@settings(max_examples=200)
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


def test_wide_arrays_need_x64_on_both_sides(path):
    tree = {"w": np.array([1e300, -0.0]), "n": np.array([2**60])}
    with pytest.raises(
        ValueError, match="cannot save leaf 'n': int64 needs .*enable_x64"
    ):
        pack.save(path, tree)
    with jax.enable_x64(True):
        pack.save(path, tree)
        assert_same(pack.load(path), tree)
    with pytest.raises(ArtifactError, match="tensor 'n': int64 needs .*enable_x64"):
        pack.load(path)


def test_containers_come_back_plain(path):
    x = jnp.ones(2)
    pack.save(path, FrozenDict(a=OrderedDict(b=x), c=np.float32(1.5)))
    assert_same(pack.load(path), {"a": {"b": x}, "c": jnp.float32(1.5)})


def test_big_endian_arrays_come_back_native(path):
    pack.save(path, np.arange(5, dtype=">i4"))
    assert_same(pack.load(path), jnp.arange(5))


def test_any_reader_of_safetensors_lists_the_leaves_by_path(path):
    tree = small_tree() | {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}}
    pack.save(path, tree)
    with safe_open(path, framework="numpy") as file:
        assert sorted(file.keys()) == [
            *("Dense_0/bias", "Dense_0/kernel", "a/b", "a/b'", "rest/1/0")
        ]
        manifest = json.loads(file.metadata()["jaxcompress"])
    assert manifest["tree"]["Dense_0"]["bias"].startswith("float32[3]")
    assert_same(pack.load(path), tree)


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
    "tree",
    [
        nnx_state(),
        eqx.filter(eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0)), eqx.is_array),
        {"x": Pair(jnp.ones(2), small_tree()["Dense_0"]["kernel"])},
    ],
    ids=["State", "MLP", "Pair"],
)
def test_other_pytrees_come_back_with_like(path, tree, request):
    pack.save(path, tree)
    assert_same(pack.load(path, like=tree), tree)
    name = request.node.callspec.id
    with pytest.raises(ValueError, match=f"a {name} in it.*pass like="):
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
    with pytest.raises(ValueError, match=r"'a' is \(2, 3\) there and \(3, 2\) in like"):
        pack.load(path, like={"a": jnp.ones((3, 2)), "b": jnp.ones(1)})


def test_paths_that_cannot_be_told_apart_are_refused(path):
    tree = {"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}
    with pytest.raises(ValueError, match="same path text"):
        pack.save(path, Pair(tree, None))


# --- what cannot be saved -----------------------------------------------------------


@pytest.mark.parametrize(
    ("tree", "error", "text"),
    [
        ({"a": {1: jnp.ones(1)}}, TypeError, "dict at 'a' has the key 1; only strings"),
        ({"\ud800": jnp.ones(1)}, ValueError, "is no valid text"),
        ({"step": 3}, TypeError, "leaf 'step': int is no array.*jnp.asarray"),
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
    with pytest.raises(ImportError, match="pip install 'safetensors"):
        pack.save(path, {})


# --- the file system ----------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "net.safetensors"
    pack.save(path, {"a": jnp.ones(3)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        OSError, match="cannot save .*No space left.*Is the folder writ"
    ):
        pack.save(path, {"a": jnp.zeros(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_an_interruption_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    pack.save(path, {"a": jnp.ones(3)})
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack.save(path, {"a": jnp.zeros(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="folder .*nowhere' does not exist"):
        pack.save(tmp_path / "nowhere" / "x", {})
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        pack.save(tmp_path, {})
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pack.load(tmp_path / "x")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="Is the folder writable"):
        pack.save(tmp_path / "x", {})


# --- damaged and hostile files ------------------------------------------------------


@functools.cache
def small_file():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net")
        pack.save(path, small_tree())
        with open(path, "rb") as file:
            return file.read()


@settings(max_examples=300)
@given(data=st.data())
def test_damage_is_found(path, data):
    """Flipped and cut bytes: an ArtifactError, or no harm; never anything else."""
    tree, content = small_tree(), bytearray(small_file())
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    kept = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    path.write_bytes(content[:kept])
    try:
        loaded = pack.load(path)
    except ArtifactError as error:
        assert str(path) in str(error)
    else:
        assert_same(loaded, tree)


def test_every_single_bit_of_a_small_file_is_guarded(path):
    tree = {"a": jnp.array([1.0, 2.0])}
    pack.save(path, tree)
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert_same(pack.load(path), tree)
        except ArtifactError:
            pass


@given(content=st.binary(max_size=100))
def test_any_bytes_are_no_artifact(path, content):
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="safetensors says"):
        pack.load(path)


def forge(path, tree, tensors, checksums=None, **fields):
    """Write a file as an attacker would, its own checksums correct."""
    arrays = {k: np.frombuffer(v, np.uint8) for k, v in tensors.items()}
    text = json.dumps([tree, fields.get("by_path")], separators=(",", ":"))
    own = [zlib.crc32(text.encode()), *(checksums or [0] * len(tensors))]
    manifest = {"version": 1, "crc32": own, "tree": tree} | fields
    save_file(arrays, path, {"jaxcompress": json.dumps(manifest)})


HUGE = 10**15
HOSTILE = {
    "huge": (f"int8[{HUGE}]packed", b"\x02\0\0", "tensor 'x': .*max_bytes=8589934592"),
    "huge and empty": (f"int8[{HUGE},{HUGE},0]raw", b"\0", "max_bytes"),
    "many axes": (f"int8[{','.join('1' * 40)}]raw", b"\x01\0", "which is unknown"),
    "unknown codec": ("int8[2]brotli", b"\x01\0", "codec 'brotli' is unknown.*newer"),
    "unknown dtype": ("object[2]raw", b"\x01\0", "dtype object cannot be saved"),
    "unknown leaf": (
        ["Pickle", [], 1],
        b"",
        r"\['Pickle', \[\], 1\].*which is unknown",
    ),
    "not a bool": ("bool[1]raw", b"\x01\x02", "a bool is neither 0 nor 1"),
    "trailing bytes": ("int8[1]raw", b"\x01\0\0", "longer than its array"),
    "short": (
        "int8[9]raw",
        b"\x01\0",
        "tensor 'x': the payload does not have the size",
    ),
    "checksum": ("int8[1]raw", b"\x01\0", "tensor 'x': the checksum is wrong.*damaged"),
    "bits": (
        ["QArray", [None, None, None], -4, "int8"],
        b"",
        "-4 is no number of bits",
    ),
    "fields": (["QArray", [None]], b"", "tensor 'x'"),
    "mask": (["SparseArray", [None, None]], b"", "values and a mask of bools"),
    "empty tag": ([], b"", "which is unknown"),
    "number": (5, b"", "which is unknown"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests_are_refused(path, name):
    node, payload, text = HOSTILE[name]
    forge(path, {"x": node}, {"x": payload})
    with pytest.raises(ArtifactError, match=text):
        pack.load(path)


def test_tensors_and_manifest_must_agree(path):
    forge(path, {"x": "int8[0]raw"}, {"y": b"\0"})
    with pytest.raises(ArtifactError, match="tensor 'x' is missing"):
        pack.load(path)
    forge(path, {}, {"y": b"\0"})
    with pytest.raises(ArtifactError, match="tensor 'y' belongs to no leaf"):
        pack.load(path)
    forge(path, {}, {}, version=2)
    with pytest.raises(ArtifactError, match="version is 2 .*newer jaxcompress"):
        pack.load(path)
    forge(path, {}, {}, crc32=[1])
    with pytest.raises(ArtifactError, match="checksum of its manifest is wrong"):
        pack.load(path)


def test_deep_nesting_is_refused(path):
    text = '{"version":1,"crc32":[0],"tree":' + "[" * 100_000 + "]" * 100_000 + "}"
    save_file({}, path, {"jaxcompress": text})
    with pytest.raises(ArtifactError, match="recursion"):
        pack.load(path)


def test_other_safetensors_files_are_told_apart(path):
    save_file({"x": np.ones(3)}, path)
    with pytest.raises(ArtifactError, match="safetensors file, but none that jaxcomp"):
        pack.load(path)
    save_file({"x": np.ones(3)}, path, {"jaxcompress": "{}"})
    with pytest.raises(ArtifactError, match="tensor 'x' is no list of bytes"):
        pack.load(path)


def test_decoding_is_bounded_by_max_bytes(path):
    pack.save(path, {"a": jnp.zeros(500), "b": jnp.zeros(500)})
    assert_same(pack.load(path, max_bytes=4000)["b"], jnp.zeros(500))
    with pytest.raises(
        ArtifactError, match="tensor 'b': .*max_bytes=3999; pass a larger"
    ):
        pack.load(path, max_bytes=3999)
