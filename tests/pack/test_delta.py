# SPDX-License-Identifier: Apache-2.0
"""Updates of files: the new file byte for byte, in bytes that follow what changed."""

import hashlib
import os
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import version_1
from draws import normal
from examples import examples
from hypothesis import given, strategies as st
from safetensors.numpy import save_file
from test_damaged import forge
from test_file import TREES
from trees import small_tree

import jaxcompress as jc
from jaxcompress import pack
from jaxcompress.pack import ArtifactError, _between, _codecs


def tree_of(scale=1.0, sparsity=0.7, head=1.0):
    """Two matrices of codes, sparse ones, a float head, a mask, and biases."""
    w = np.array(normal(60, 40))
    w[:, 0] *= np.float32(scale)
    small = jc.chain(jc.magnitude_pruning(sparsity), jc.weight_quantization(bits=4))
    leaf = jc.compress(small, {"kernel": w})["kernel"]
    mask = np.abs(w) > np.quantile(np.abs(w), sparsity)
    return {
        "body": {"kernel": leaf, "bias": np.arange(40, dtype=np.float32)},
        "sparse": jc.SparseArray.from_dense(jnp.asarray(w * mask)),
        "mask": mask,
        "packed": jc.pack_codes({"kernel": leaf})["kernel"],
        "head": [np.float32(head) * w[:30], None],
    }


CHANGES = {
    "nothing": (tree_of, tree_of),
    "head": (tree_of, lambda: tree_of(head=1.001)),
    "one scale": (tree_of, lambda: tree_of(scale=1.01)),
    "re-pruned": (tree_of, lambda: tree_of(sparsity=0.71)),
    "everything": (tree_of, lambda: jax.tree.map(lambda x: x[::-1], tree_of())),
    "another tree": (tree_of, small_tree),
    "from nothing": (dict, tree_of),
    "to nothing": (tree_of, dict),
    "shapes": (lambda: {"a": jnp.ones((3, 2))}, lambda: {"a": jnp.ones((2, 3))}),
    "dtypes": (lambda: {"a": jnp.ones(9, int)}, lambda: {"a": jnp.ones(9)}),
    "kinds": (lambda: {"a": normal(6, 2)}, lambda: {"a": tree_of()["sparse"]}),
    "scalars": (lambda: {"a": np.float32(3)}, lambda: {"a": np.float32(3.5)}),
    "empty": (lambda: {"a": np.zeros((0, 3))}, lambda: {"a": np.zeros((3, 0))}),
    "moved": (tree_of, lambda: {"net": tree_of()}),
}


@pytest.fixture
def paths(tmp_path):
    return [tmp_path / name for name in ("old", "new", "delta", "made")]


def check(paths):
    """Diff and patch; return the sizes of delta and new file."""
    old, new, delta, made = paths
    before, after = old.read_bytes(), new.read_bytes()
    size = pack.diff(old, new, delta)
    assert size == delta.stat().st_size
    assert pack.patch(old, delta, made) == len(after)
    assert made.read_bytes() == after
    assert (old.read_bytes(), new.read_bytes()) == (before, after)
    return size, len(after)


@pytest.mark.parametrize("name", CHANGES)
def test_patch_inverts_diff_byte_for_byte(paths, name):
    for path, make in zip(paths, CHANGES[name], strict=False):
        pack.save(path, make())
    check(paths)
    info = pack.read_delta(paths[2])
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths[:2]]
    assert [info.old_sha256, info.new_sha256] == hashes
    assert info.new_bytes == paths[1].stat().st_size


@examples(60)
@given(old=TREES, new=TREES)
def test_any_file_becomes_any_other(tmp_path_factory, old, new):
    folder = tmp_path_factory.mktemp("delta")
    paths = [folder / name for name in ("old", "new", "delta", "made")]
    pack.save(paths[0], old)
    pack.save(paths[1], new)
    check(paths)


def test_deltas_follow_what_changed(paths):
    sizes = {}
    for name in ("nothing", "head", "one scale", "re-pruned", "moved"):
        for path, make in zip(paths, CHANGES[name], strict=False):
            pack.save(path, make())
        sizes[name] = check(paths)
    heads = {e.path: e.nbytes for e in pack.inspect(paths[0]).entries}
    assert sizes["nothing"][0] < 130
    assert sizes["head"][0] < heads["head/0"] * 3 / 4 + 200
    assert sizes["one scale"][0] < sizes["one scale"][1] / 3
    assert sizes["re-pruned"][0] < sizes["re-pruned"][1] / 4
    assert sizes["moved"][0] < sizes["moved"][1] / 4


def test_files_of_the_first_layout_are_updated(paths):
    old, new, _, made = paths
    old.write_bytes((Path(__file__).parent / "version_1.safetensors").read_bytes())
    pack.save(new, version_1.tree())
    size, whole = check(paths)
    head = whole - sum(entry.nbytes for entry in pack.inspect(new).entries)
    assert size < head + 100  # the payloads are those of the old file
    paths = [new, old, paths[2], made]
    check(paths)


def test_a_renamed_leaf_is_found_by_its_content(paths):
    w = normal(200, 30)
    pack.save(paths[0], {"a": w, "z": jnp.ones(3)})
    pack.save(paths[1], {"b": w, "c": w, "z": jnp.ones(3)})
    size, _ = check(paths)
    assert size < w.nbytes / 20


def test_a_file_is_updated_in_place(paths):
    old, new, delta, _ = paths
    pack.save(old, tree_of())
    pack.save(new, tree_of(head=1.5))
    pack.diff(old, new, delta)
    pack.patch(old, delta, old)
    assert old.read_bytes() == new.read_bytes()
    with pytest.raises(ArtifactError, match="is already the file that .*nothing to do"):
        pack.patch(old, delta, old)


def test_a_wrong_base_is_refused_and_the_right_one_named(paths):
    old, new, delta, made = paths
    pack.save(old, tree_of())
    pack.save(new, tree_of(head=1.5))
    pack.diff(old, new, delta)
    want = hashlib.sha256(old.read_bytes()).hexdigest()
    pack.save(old, tree_of(head=3.0))
    have = hashlib.sha256(old.read_bytes()).hexdigest()
    text = f"'.*old' is not the file that '.*delta' updates: .*{want}, this one {have}"
    with pytest.raises(ArtifactError, match=text):
        pack.patch(old, delta, made)
    assert not made.exists()
    for missing in ((made, delta, made), (old, made, made)):
        with pytest.raises(FileNotFoundError, match="there is no file"):
            pack.patch(*missing)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        pack.diff(made, new, delta)


def small_delta(folder):
    """A delta with payloads that are copied, new and coded; its old and new file."""
    old, new, delta = (folder / name for name in ("old", "new", "delta"))
    pack.save(old, tree_of())
    pack.save(new, tree_of(scale=1.01, head=1.5) | {"more": jnp.arange(9.0)})
    pack.diff(old, new, delta)
    return old, new, delta


@examples(200)
@given(data=st.data())
def test_damage_to_a_delta_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged_delta"
    if not folder.exists():
        folder.mkdir()
        small_delta(folder)
    old, new, delta, made = (folder / n for n in ("old", "new", "delta", "made"))
    content, draws = bytearray(delta.read_bytes()), data.draw
    for _ in range(draws(st.integers(1, 3))):
        at = draws(st.integers(0, len(content) - 1))
        content[at] ^= 1 << draws(st.integers(0, 7))
    kept = draws(st.integers(0, len(content)) | st.just(len(content)))
    signed = draws(st.booleans())
    bad = folder / "bad"
    body = bytes(content[: max(kept - 4, 0)])
    foot = (zlib.crc32(body)).to_bytes(4, "little")
    # An attacker, or a bug, has a checksum that is right.
    bad.write_bytes(body + foot if signed else content[:kept])
    made.write_bytes(b"before")
    try:
        pack.patch(old, bad, made)
    except ArtifactError as error:
        assert str(bad) in str(error)
        assert made.read_bytes() == b"before"
    else:
        assert made.read_bytes() == new.read_bytes()
    assert sorted(os.listdir(folder)) == ["bad", "delta", "made", "new", "old"]


@pytest.mark.parametrize("content", [b"", b"\0", b"jcdelta1", b"x" * 200])
def test_what_is_no_delta_is_refused(paths, content):
    old, _, delta, made = paths
    pack.save(old, {})
    delta.write_bytes(content)
    for use in (lambda: pack.patch(old, delta, made), lambda: pack.read_delta(delta)):
        with pytest.raises(ArtifactError, match="delta' cannot be used: .*not a delta"):
            use()
    delta.write_bytes(b"jcdelta9" + bytes(99))
    with pytest.raises(ArtifactError, match="a newer jaxcompress made it"):
        pack.read_delta(delta)


def test_values_of_a_sparse_array_follow_its_mask(paths):
    old, new, _, _ = paths
    w = np.array(normal(100, 60))
    kept = [np.where(np.abs(w) > limit, w, 0) for limit in (1.6, 1.65)]
    for path, dense in zip((old, new), kept, strict=True):
        pack.save(path, {"w": jc.SparseArray.from_dense(jnp.asarray(dense))})
    size, whole = check(paths)
    values = 4 * np.count_nonzero(kept[1])
    assert size < whole - 0.9 * values


def test_a_malformed_old_leaf_is_refused(paths):
    """Three values for two places: the file is as it was when the delta was made."""
    old, new, delta, made = paths
    pack.save(old, {"a": jc.SparseArray.from_dense(normal(2, 3))})
    pack.save(new, {"a": jc.SparseArray.from_dense(normal(2, 3).at[0, 0].set(0))})
    pack.diff(old, new, delta)
    node = ["SparseArray", ["float32[3]raw", "bool[2,3]raw"]]
    forge(old, {"a": node}, {"a": b"\x0c" + bytes(12) + b"\x06" + b"\1\1" + bytes(4)})
    content = bytearray(delta.read_bytes())
    content[8:40] = hashlib.sha256(old.read_bytes()).digest()
    content[-4:] = zlib.crc32(content[:-4]).to_bytes(4, "little")
    delta.write_bytes(content)
    with pytest.raises(ArtifactError, match="delta' cannot be used"):
        pack.patch(old, delta, made)


def test_a_delta_decodes_no_more_than_a_load_would(paths):
    """A few bytes of the old file that claim gigabytes, and a delta that fits it."""
    old, _, delta, made = paths
    forge(old, {"a": f"int64[{1 << 40}]packed"}, {"a": b"\x03\0\0"})
    digest = hashlib.sha256(old.read_bytes()).digest()
    no_head, coded = b"\0", b"\2\0\1\0"  # an array against the old one
    body = b"jcdelta1" + digest + bytes(32) + b"\x09" + no_head
    body += b"\1" + b"\0\1\0" + bytes([len(coded)]) + coded
    delta.write_bytes(body + zlib.crc32(body).to_bytes(4, "little"))
    with pytest.raises(ArtifactError, match="tensor 'a': decoding it needs more than"):
        pack.patch(old, delta, made)


def test_a_delta_of_a_damaged_file_is_refused(paths):
    old, new, delta, _ = paths
    pack.save(old, {"a": normal(9, 9)})
    pack.save(new, {"a": normal(9, 9) + 1})
    with pytest.raises(ValueError, match="delta_path must be another file"):
        pack.diff(old, new, old)
    forge(new, {"a": "float32[9,9]packed"}, {"a": b"\x03\0\x09\1"})
    with pytest.raises(ArtifactError, match="tensor 'a'"):
        pack.diff(old, new, delta)
    save_file({"x": np.ones(3)}, new)
    with pytest.raises(ArtifactError, match="new' .*not one written by jaxcompress"):
        pack.diff(old, new, delta)
    assert not delta.exists()


def test_another_encoder_is_noticed(paths, monkeypatch):
    old, new, delta, made = paths
    pack.save(old, tree_of())
    pack.save(new, tree_of(scale=1.01))
    pack.diff(old, new, delta)
    inner = _between.decode
    monkeypatch.setattr(_between, "decode", lambda *x: inner(*x)[..., ::-1].copy())
    with pytest.raises(ArtifactError, match="SHA-256 .*Copy the new file instead"):
        pack.patch(old, delta, made)
    assert not made.exists()


def test_files_of_another_encoder_are_copied_where_they_differ(paths, monkeypatch):
    """A payload that this encoder does not make is not made again, but shipped."""
    old, new, _, _ = paths
    pack.save(old, {"a": jnp.arange(40), "b": jnp.arange(8)})
    with monkeypatch.context() as patch:
        simple = (_codecs.ALL[0],)
        patch.setattr(_codecs, "ALL", simple)
        pack.save(new, {"a": jnp.arange(40) * 2, "b": jnp.arange(8)})
    check(paths)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_state_and_nothing_else(tmp_path, monkeypatch, call):
    old, new, delta = small_delta(tmp_path)
    before = {path.name: path.read_bytes() for path in (old, new, delta)}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    for write in (
        lambda: pack.patch(old, delta, old),
        lambda: pack.diff(new, old, delta),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_progress_ends_with_the_total(paths):
    old, new, delta, made = paths
    pack.save(old, tree_of())
    pack.save(new, tree_of(head=1.5))
    for write in (pack.diff, pack.patch):
        seen = []
        files = (old, new, delta) if write is pack.diff else (old, delta, made)
        write(*files, progress=lambda *at, seen=seen: seen.append(at))
        assert [x for x, _ in seen] == sorted(x for x, _ in seen)
        assert seen[-1][0] == seen[-1][1]


def test_an_update_and_a_folder_are_no_files_to_load(tmp_path):
    old, new, delta = (tmp_path / name for name in ("old", "new", "delta"))
    pack.save(old, {"w": np.zeros((4, 4), np.float32)})
    pack.save(new, {"w": np.ones((4, 4), np.float32)})
    pack.diff(old, new, delta)
    for read in (pack.load, pack.inspect):
        with pytest.raises(
            pack.ArtifactError, match=r"is an update, made by diff\. Ap"
        ):
            read(delta)
        with pytest.raises(IsADirectoryError, match="is a folder. Pass the path of a"):
            read(tmp_path)
