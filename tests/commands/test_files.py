# SPDX-License-Identifier: Apache-2.0
"""The command line compares, updates and checks packed files."""

import hashlib
import sys

import jax.numpy as jnp
import pytest

import jaxcompress as jc
from jaxcompress.commands import _progress, main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jc.save("old.jc", {"a": jnp.arange(900.0), "b": jnp.ones(3)})
    jc.save("new.jc", {"a": jnp.arange(900.0), "b": jnp.zeros(3)})
    return tmp_path


def test_a_file_is_compared_and_updated(folder, capsys):
    assert main(["diff", "old.jc", "new.jc", "update"]) == 0
    size = (folder / "update").stat().st_size
    assert f"update: {size:,} bytes, " in capsys.readouterr().out
    assert main(["verify", "old.jc", "update"]) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256((folder / "new.jc").read_bytes()).hexdigest()
    assert "old.jc: whole; 2 leaves" in out and f"to {digest}" in out
    assert main(["patch", "old.jc", "update", "old.jc"]) == 0
    assert (folder / "old.jc").read_bytes() == (folder / "new.jc").read_bytes()


def test_every_damaged_file_is_named(folder, capsys):
    main(["diff", "old.jc", "new.jc", "update"])
    for name in ("old.jc", "update"):
        content = bytearray((folder / name).read_bytes())
        content[-6] ^= 1
        (folder / name).write_bytes(content)
    capsys.readouterr()
    assert main(["verify", "old.jc", "new.jc", "update", "none"]) == 1
    seen = capsys.readouterr()
    assert "new.jc: whole" in seen.out
    lines = seen.err.splitlines()
    assert len(lines) == 3 and all(line.startswith("error: ") for line in lines)
    assert "old.jc" in lines[0] and "update" in lines[1] and "none" in lines[2]
    assert main(["patch", "new.jc", "update", "made"]) == 1
    assert not (folder / "made").exists()


def test_long_work_shows_how_far_it_is_and_leaves_no_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS", -1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(["verify", "old.jc"]) == 0
    line = capsys.readouterr().err
    assert "verifying old.jc: 100 % of 0.0 MB" in line
    assert line.endswith("\r") and not line.split("\r")[-2].strip()


def test_no_terminal_gets_no_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(_progress, "_SECONDS", -1)
    assert main(["diff", "old.jc", "new.jc", "update"]) == 0
    assert capsys.readouterr().err == ""
