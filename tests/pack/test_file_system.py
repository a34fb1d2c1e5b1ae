# SPDX-License-Identifier: Apache-2.0
"""Saving where the disk is full, the folder is missing, or somebody interrupts."""

import os

import jax.numpy as jnp
import pytest

from jaxcompress import pack
from jaxcompress._lock import take
from jaxcompress.pack import _manifest


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = tmp_path / "net.safetensors"
    pack.save(path, {"a": jnp.ones(3)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        OSError, match="cannot save .*No space left.*Check that the folder is writ"
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


def test_links_and_permissions_stay(tmp_path):
    path, link = tmp_path / "net.safetensors", tmp_path / "newest"
    pack.save(path, {"a": jnp.ones(3)})
    path.chmod(0o600)
    link.symlink_to(path.name)
    pack.save(link, {"a": jnp.zeros(3)})
    assert link.is_symlink() and not pack.load(path)["a"].any()
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_killed_writers_left_is_removed_and_nothing_else(tmp_path):
    path = tmp_path / "net.safetensors"
    names = {
        "killed": ".net.safetensors.1.tmp",
        "writing": ".net.safetensors.2.tmp",
        "just begun": ".net.safetensors.3.tmp",
        "of another file": ".other.safetensors.4.tmp",
    }
    for name in names.values():
        (tmp_path / name).write_bytes(b"half")
    for name in ("killed", "writing", "of another file"):
        os.utime(tmp_path / names[name], (0, 0))
    with open(tmp_path / names["writing"], "ab") as file:
        assert take(file)
        pack.save(path, {"a": jnp.ones(3)})
    left = set(names.values()) - {names["killed"]}
    assert set(os.listdir(tmp_path)) == {path.name, *left}


def test_a_file_larger_than_the_memory_is_named(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    pack.save(path, {"a": jnp.ones(3)})

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(_manifest, "read", exhausted)
    with pytest.raises(pack.ArtifactError, match="do not fit into memory"):
        pack.load(path)


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
    with pytest.raises(PermissionError, match="Check that the folder is writable"):
        pack.save(tmp_path / "x", {})
