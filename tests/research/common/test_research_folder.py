# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from research.common import Folder, RunError


def claimed(path, **settings):
    folder = Folder.check(path, resume=False)
    folder.claim(settings)
    return folder


def test_a_new_folder_holds_the_settings(tmp_path):
    folder = claimed(tmp_path / "a" / "b", bits=4, widths=(3, 2))
    assert folder.read("config.json") == {"bits": 4, "widths": [3, 2]}
    assert [file.name for file in folder.path.iterdir()] == ["config.json"]


def test_checking_writes_nothing(tmp_path):
    Folder.check(tmp_path / "a", resume=False)
    assert not (tmp_path / "a").exists()


def test_files_are_read_back_and_may_be_absent(tmp_path):
    folder = claimed(tmp_path)
    folder.write("x.json", {"a": [1, 2.5]})
    assert folder.read("x.json") == {"a": [1, 2.5]} and folder.read("y.json") is None


def test_a_damaged_file_is_named(tmp_path):
    folder = claimed(tmp_path)
    (tmp_path / "records.json").write_text("{")
    with pytest.raises(RunError, match="records.json is damaged .* Move it away"):
        folder.read("records.json")


def test_a_file_stays_as_it_was_if_the_next_cannot_be_written(tmp_path):
    folder = claimed(tmp_path)
    folder.write("x.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        folder.write("x.json", {"a": float("nan")})
    assert folder.read("x.json") == {"a": 1}


def test_a_full_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="is not empty. Choose another folder"):
        Folder.check(tmp_path, resume=False)
    with pytest.raises(RunError, match="is not empty"):
        Folder.check(tmp_path / "file", resume=False)


def test_a_run_is_never_overwritten(tmp_path):
    claimed(tmp_path)
    with pytest.raises(
        RunError, match="already holds a run. Continue it with --resume"
    ):
        Folder.check(tmp_path, resume=False)


def test_nothing_to_resume_is_said(tmp_path):
    with pytest.raises(RunError, match="holds no run to continue. Leave --resume out"):
        Folder.check(tmp_path, resume=True)


def test_the_same_settings_may_continue(tmp_path):
    claimed(tmp_path, bits=4, widths=(3, 2))
    Folder.check(tmp_path, resume=True).claim({"bits": 4, "widths": (3, 2)})


def test_other_settings_are_named(tmp_path):
    claimed(tmp_path, bits=4, seeds=1, old=None)
    folder = Folder.check(tmp_path, resume=True)
    with pytest.raises(
        RunError, match=r"other settings \(bits 4 -> 3, new None -> 1\)"
    ):
        folder.claim({"bits": 3, "seeds": 1, "new": 1})
    assert folder.read("config.json")["bits"] == 4


def test_free_settings_may_change(tmp_path):
    claimed(tmp_path, bits=4, seeds=1)
    folder = Folder.check(tmp_path, resume=True)
    folder.claim({"bits": 4, "seeds": 2}, free=("seeds",))
    assert folder.read("config.json")["seeds"] == 2
    with pytest.raises(RunError, match="seeds 2 -> 3"):
        folder.claim({"bits": 4, "seeds": 3})


@pytest.mark.parametrize("content", ["", "3", "{"])
def test_a_damaged_settings_file_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunError, match="config.json is not a settings file of a study"):
        Folder.check(tmp_path, resume=True).claim({})


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Choose a folder that you may write to"):
        Folder.check(tmp_path / "file" / "out", resume=False).claim(json.loads("{}"))
