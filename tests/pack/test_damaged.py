# SPDX-License-Identifier: Apache-2.0
"""Damaged and hostile files: an error that names the file, and never anything else."""

import functools
import json
import os
import tempfile
import zlib

import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples
from hypothesis import given, strategies as st
from safetensors.numpy import save_file
from trees import assert_same, small_tree

from jaxcompress import pack
from jaxcompress.pack import ArtifactError
from jaxcompress.pack._payload import varint


@functools.cache
def small_file():
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net")
        pack.save(path, small_tree())
        with open(path, "rb") as file:
            return file.read()


@examples(300)
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
    with pytest.raises(ArtifactError, match="safetensors reports"):
        pack.load(path)


def forge(path, tree, tensors, checksums=None, **fields):
    """Write a file as an attacker would, its own checksums correct."""
    arrays = {k: np.frombuffer(v, np.uint8) for k, v in tensors.items()}
    text = json.dumps([tree, fields.get("by_path")], separators=(",", ":"))
    own = [zlib.crc32(text.encode()), *(checksums or [0] * len(tensors))]
    manifest = {"version": 1, "crc32": own, "tree": tree} | fields
    save_file(arrays, path, {"jaxcompress": json.dumps(manifest)})


def forge_2(path, tree, tensors, checksums=None, *, text=None, damage=None):
    """The same in the second layout: one tensor, the manifest first."""
    coder = zlib.compressobj(wbits=-15)
    text = json.dumps([tree, None]).encode() if text is None else text
    text = coder.compress(text) + coder.flush()
    crcs = [x.to_bytes(4, "little") for x in checksums or [0] * len(tensors)]
    body = varint(len(text)) + text
    body += b"".join([*(varint(len(x)) for x in tensors.values()), *crcs])
    head = zlib.crc32(body).to_bytes(4, "little") + varint(len(body))
    content = damage(head + body) if damage else head + body
    content += b"".join(tensors.values())
    metadata = {"jaxcompress": '{"version":2}'}
    save_file({"leaves": np.frombuffer(content, np.uint8)}, path, metadata)


HUGE = 10**15
HOSTILE = {
    "huge": (f"int8[{HUGE}]packed", b"\x02\0\0", "tensor 'x': .*max_bytes=268435456"),
    "huge and empty": (f"int8[{HUGE},{HUGE},0]raw", b"\0", "max_bytes"),
    "many axes": (f"int8[{','.join('1' * 40)}]raw", b"\x01\0", "has an unknown node"),
    "unknown codec": ("int8[2]brotli", b"\x01\0", "codec 'brotli' is unknown.*newer"),
    "unknown dtype": ("object[2]raw", b"\x01\0", "dtype object cannot be saved"),
    "unknown leaf": (
        ["Pickle", [], 1],
        b"",
        r"has an unknown node .*\['Pickle', \[\], 1\]",
    ),
    "not a bool": ("bool[1]raw", b"\x01\x02", "a bool must be 0 or 1"),
    "trailing bytes": ("int8[1]raw", b"\x01\0\0", "longer than its array"),
    "short": (
        "int8[9]raw",
        b"\x01\0",
        "tensor 'x': the payload does not have the size",
    ),
    "checksum": ("int8[1]raw", b"\x01\0", "tensor 'x': the checksum is wrong.*damaged"),
    "format": (
        ["QArray", [None, None, None], ["Int", -4, True, None], "int8"],
        b"",
        "bits must be an integer from 1 to 8, or 16; got -4",
    ),
    "unknown format": (
        ["QArray", [None, None, None], ["os.system", "ls"], "int8"],
        b"",
        "unknown format .*os.system",
    ),
    "fields of a format": (
        ["QArray", [None, None, None], ["Levels", 4], "int8"],
        b"",
        "tensor 'x'",
    ),
    "fields": (["QArray", [None]], b"", "tensor 'x'"),
    "mask": (["SparseArray", [None, None]], b"", "values and a mask of bools"),
    "empty tag": ([], b"", "has an unknown node"),
    "number": (5, b"", "has an unknown node"),
}


@pytest.mark.parametrize("write", [forge, forge_2])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_manifests_are_refused(path, name, write):
    node, payload, text = HOSTILE[name]
    write(path, {"x": node}, {"x": payload})
    with pytest.raises(ArtifactError, match=text):
        pack.load(path)


def test_tensors_and_manifest_must_agree(path):
    forge(path, {"x": "int8[0]raw"}, {"y": b"\0"})
    with pytest.raises(ArtifactError, match="tensor 'x' is missing"):
        pack.load(path)
    forge(path, {}, {"y": b"\0"})
    with pytest.raises(ArtifactError, match="tensor 'y' does not belong to a leaf"):
        pack.load(path)
    forge(path, {}, {}, version=3)
    with pytest.raises(ArtifactError, match="version is 3 .*newer jaxcompress"):
        pack.load(path)
    forge(path, {}, {}, crc32=[1])
    with pytest.raises(ArtifactError, match="checksum of its manifest is wrong"):
        pack.load(path)


MANIFESTS = {
    "no JSON": ({"text": b"{"}, "manifest is not valid"),
    "not two": ({"text": b"[1]"}, "manifest is not valid"),
    "not a list": ({"text": b"5"}, "manifest is not valid"),
    "not text": ({"text": b"\xff"}, "manifest is not valid"),
    "too much text": ({"text": b" " * (65 << 20)}, "more than 67108864 characters"),
    "checksum": ({"damage": lambda x: x[:-1] + b"\1"}, "checksum of its manifest"),
    "too short": ({"damage": lambda x: x[:-1]}, "manifest ends too early"),
    "nothing": ({"damage": lambda x: b""}, "ends too early"),
    "payloads": ({"damage": lambda x: x + b"\0"}, "payloads do not fill the file"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_hostile_second_manifests_are_refused(path, name):
    settings, text = MANIFESTS[name]
    forge_2(path, {"x": "int8[0]raw"}, {"x": b""}, **settings)
    with pytest.raises(ArtifactError, match=text):
        pack.load(path)
    metadata = {"jaxcompress": '{"version":2}'}
    save_file({"y": np.zeros(3, np.uint8)}, path, metadata)
    with pytest.raises(ArtifactError, match="does not have one tensor 'leaves'"):
        pack.load(path)
    save_file({"leaves": np.zeros((3, 3))}, path, metadata)
    with pytest.raises(ArtifactError, match="'leaves' is not a vector of bytes"):
        pack.load(path)


def test_deep_nesting_is_refused(path):
    forge_2(path, {}, {}, text=b"[" * 100_000 + b"]" * 100_000)
    with pytest.raises(ArtifactError, match="recursion"):
        pack.load(path)
    text = '{"version":1,"crc32":[0],"tree":' + "[" * 100_000 + "]" * 100_000 + "}"
    save_file({}, path, {"jaxcompress": text})
    with pytest.raises(ArtifactError, match="recursion"):
        pack.load(path)


def test_other_safetensors_files_are_told_apart(path):
    save_file({"x": np.ones(3)}, path)
    with pytest.raises(
        ArtifactError, match="safetensors file, but not one written by jaxcomp"
    ):
        pack.load(path)
    save_file({"x": np.ones(3)}, path, {"jaxcompress": '{"version":1}'})
    with pytest.raises(ArtifactError, match="tensor 'x' is not a vector of bytes"):
        pack.load(path)


def test_decoding_is_bounded_by_max_bytes(path):
    pack.save(path, {"a": jnp.zeros(500), "b": jnp.zeros(500)})
    assert_same(pack.load(path, max_bytes=4000)["b"], jnp.zeros(500))
    with pytest.raises(
        ArtifactError, match="tensor 'b': .*max_bytes=3999; pass a larger"
    ):
        pack.load(path, max_bytes=3999)
