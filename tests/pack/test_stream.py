# SPDX-License-Identifier: Apache-2.0
"""Leaves read without the rest of their file."""

import contextlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from examples import examples
from hypothesis import given
from test_damaged import forge
from test_file import TREES
from test_working_memory import peak_of
from trees import assert_same, small_tree

import jaxcompress as jc
from jaxcompress import pack
from jaxcompress.pack import ArtifactError, _reader


class Pair(NamedTuple):
    left: jax.Array
    right: jax.Array


@pytest.fixture
def read_counts(monkeypatch):
    """Bytes of payloads that are read from the file."""
    counts = []
    inner = _reader.opened

    def tensor(old):
        def read():
            data = old.read()
            counts.append(len(data))
            return data

        return old._replace(read=read)

    @contextlib.contextmanager
    def counting(path):
        with inner(path) as file:
            yield file._replace(tensors={k: tensor(t) for k, t in file.tensors.items()})

    monkeypatch.setattr("jaxcompress.pack._stream.opened", counting)
    return counts


def test_selected_leaves_are_those_of_a_whole_load(path, read_counts):
    pack.save(path, small_tree())
    whole = pack.load(path)
    sizes = {e.path: e.nbytes for e in pack.inspect(path).entries}
    got = pack.load_leaves(path, "Dense_0/*")
    assert_same(got, {f"Dense_0/{k}": v for k, v in whole["Dense_0"].items()})
    assert sum(read_counts) == sizes["Dense_0/bias"] + sizes["Dense_0/kernel"]
    assert_same(pack.load_leaves(path, "rest/1/0"), {"rest/1/0": whole["rest"][1][0]})
    everything = pack.load_leaves(path, "*")
    assert_same(list(everything.values()), jax.tree.leaves(whole, is_leaf=_is_leaf))


@examples(40)
@given(tree=TREES)
def test_all_leaves_are_those_of_a_whole_load(path, tree):
    pack.save(path, tree)
    whole = jax.tree.leaves(pack.load(path), is_leaf=_is_leaf)
    assert_same(list(pack.load_leaves(path, "*").values()) if whole else [], whole)
    assert_same([entry.leaf for entry in pack.stream(path)], whole)


def _is_leaf(x):
    return isinstance(x, jc.Leaf)


def test_a_stream_yields_what_inspect_lists(path, read_counts):
    pack.save(path, small_tree())
    entries = pack.inspect(path).entries
    for i, (entry, expected) in enumerate(
        zip(pack.stream(path), entries, strict=True), 1
    ):
        assert entry._replace(leaf=None) == expected._replace(leaf=None)
        assert_same(entry.leaf, expected.leaf)
        assert len(read_counts) == i  # nothing is read ahead


def test_leaves_of_any_container_are_selected_by_path(path):
    pack.save(path, {"x": Pair(jnp.ones(2), jnp.zeros(3)), "y": None})
    assert_same(pack.load_leaves(path, "x/left"), {"x/left": jnp.ones(2)})


def test_paths_of_the_same_text_are_told_apart(path):
    pack.save(path, {"a/b": jnp.ones(1), "a": {"b": jnp.zeros(1)}})
    got = pack.load_leaves(path, "a/b")
    assert sorted(got) == ["a/b", "a/b'"]


def test_a_glob_that_matches_nothing_names_the_closest_paths(path):
    pack.save(path, small_tree())
    with pytest.raises(ValueError, match="'Dense_0/kernal' matches none of the 3 leaves "
                       "of .*; closest: 'Dense_0/kernel'") as caught:  # fmt: skip
        pack.load_leaves(path, "Dense_0/kernal")
    assert not isinstance(caught.value, ArtifactError)
    pack.save(path, {})
    with pytest.raises(ValueError, match="none of the 0 leaves"):
        pack.load_leaves(path, "a")
    assert list(pack.stream(path)) == [] and pack.verify(path) == 0


def test_damage_is_found_where_it_is_read_and_only_there(path):
    pack.save(path, {"a": jnp.arange(300.0), "b": jnp.arange(300.0) + 1})
    content = bytearray(path.read_bytes())
    content[-9] ^= 1  # in the last leaf
    path.write_bytes(content)
    assert_same(pack.load_leaves(path, "a"), {"a": jnp.arange(300.0)})
    with pytest.raises(ArtifactError, match="tensor 'b'"):
        pack.load_leaves(path, "*")
    leaves = pack.stream(path)
    assert next(leaves).path == "a"
    with pytest.raises(ArtifactError, match="tensor 'b'"):
        next(leaves)
    with pytest.raises(ArtifactError, match="tensor 'b'"):
        pack.verify(path)
    forge(path, {"a": "int8[0]raw"}, {"a": b"\0", "b": b""})
    for read in (pack.load_leaves, pack.stream):
        with pytest.raises(ArtifactError, match="'b' does not belong to a leaf"):
            list(read(path, "a"))


def test_the_bound_holds_for_each_streamed_leaf_and_for_all_that_are_kept(path):
    pack.save(path, {"a": jnp.zeros(500), "b": jnp.zeros(500)})
    assert len(list(pack.stream(path, max_bytes=2000))) == 2
    with pytest.raises(ArtifactError, match="'a': .*max_bytes=1999; pass a larger"):
        next(pack.stream(path, max_bytes=1999))
    with pytest.raises(ArtifactError, match="'b': .*max_bytes=2000; pass a larger"):
        pack.load_leaves(path, "*", max_bytes=2000)


def test_one_leaf_needs_no_memory_for_the_others(path):
    draws = np.random.default_rng(0)
    tree = {str(i): draws.standard_normal(100_000, np.float32) for i in range(6)}
    pack.save(path, tree)
    pack.load_leaves(path, "0")  # imports
    assert peak_of(lambda: pack.load_leaves(path, "3")) < 4 * tree["3"].nbytes
    assert peak_of(lambda: pack.verify(path)) < 4 * tree["3"].nbytes


def test_verifying_reports_progress(path):
    size, seen = pack.save(path, small_tree()), []
    assert pack.verify(path, progress=lambda *at: seen.append(at)) == 3
    done = [x for x, _ in seen]
    assert done == sorted(done) and seen[-1] == (size, size)
