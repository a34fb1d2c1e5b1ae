# SPDX-License-Identifier: Apache-2.0
"""Saving where the disk is full, the folder is missing, or somebody interrupts."""

import os

import jax.numpy as jnp
import pytest

from jaxcompress import pack


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
