# SPDX-License-Identifier: Apache-2.0
import subprocess

import jax
import pytest

import jaxcompress as jc
from jaxcompress import report


def test_provenance_names_versions_device_and_commit(tmp_path):
    here = report.provenance(["a", "b"], repository=tmp_path)
    assert here.versions["jax"] == jax.__version__
    assert here.versions["jaxcompress"] == jc.__version__
    assert (here.commit, here.transforms) == (None, ("a", "b"))

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.invalid"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    git("init")
    git("commit", "--allow-empty", "--message", "x")
    head = git("rev-parse", "HEAD")
    assert report.provenance(repository=tmp_path).commit == head
    (tmp_path / "new").touch()
    assert report.provenance(repository=tmp_path).commit == f"{head}-dirty"


def test_one_text_is_no_list_of_transforms():
    with pytest.raises(TypeError, match="must be a list of strings"):
        report.provenance("prune")
