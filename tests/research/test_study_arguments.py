# SPDX-License-Identifier: Apache-2.0
"""What studies say of bad arguments, before anything is trained."""

import dataclasses
import importlib
import importlib.util
import json

import pytest

from research.deep_compression._config import config_of

STUDIES = [
    "bit_widths",
    "deep_compression",
    "distillation",
    "distillation_schemes",
    "joint_compression",
    "lottery_tickets",
    "omitted_class",
    "on_policy",
    "one_shot",
    "sparse_training",
    "structured_pruning",
    "temperature",
]


@pytest.fixture
def call(tmp_path, capsys):
    """Run a study; its exit status, its error, and the folder it was given."""

    def main(study, *argv):
        out = tmp_path / "out"
        module = importlib.import_module(f"research.{study}.__main__")
        status = module.main([*argv, "--out", str(out)])
        return status, capsys.readouterr().err, out

    return main


@pytest.mark.parametrize("study", STUDIES)
def test_no_seeds_are_refused(study, call):
    status, error, out = call(study, "--seeds", "0")
    assert status == 2 and error == f"{study}: --seeds 0: at least 1 is needed.\n"
    assert not out.exists()


@pytest.mark.parametrize("study", STUDIES)
def test_nothing_to_resume_is_said(study, call, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    status, error, out = call(study, "--resume")
    assert status == 1 and "out holds no run to continue. Leave --resume out" in error
    assert not out.exists()


def test_a_full_folder_is_refused(call, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "file").write_text("")
    status, error, out = call("one_shot")
    assert status == 1 and "is not empty. Choose another folder with --out" in error
    assert [file.name for file in out.iterdir()] == ["file"]


def test_missing_qwix_is_said(call, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    status, error, _ = call("bit_widths")
    assert status == 1 and 'pip install -e ".[research,qwix]"' in error


def test_missing_data_are_said(call, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    (tmp_path / "empty").mkdir()
    options = [
        "--data=shakespeare",
        "--no-download",
        f"--data-dir={tmp_path / 'empty'}",
    ]
    status, error, out = call("deep_compression", *options)
    assert status == 1 and "shakespeare" in error and not out.exists()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--sparsity", "90"], 1, "Did you mean 0.9?"),
        (["--bits", "12"], 1, "bits must be an integer from 1 to 8, or 16; got 12"),
        (["--clusters", "1"], 1, "clusters must be 2 to 65536 values, got 1"),
        (["--distill", "2"], 2, "--distill 2.0 is outside"),
        (["--temperature", "0"], 2, "are positive"),
        (["--epochs", "0"], 2, "--epochs 0: at least 1 is needed"),
        (["--model", "characters"], 2, "does not fit --data digits"),
        (["--batch-size", "5000"], 1, "no batch of 5000 in the 1257 training examples"),
    ],
)
def test_settings_that_no_technique_takes_are_refused(options, status, message, call):
    got, error, out = call("deep_compression", *options)
    assert got == status and message in error and not out.exists()


def test_other_settings_are_not_continued(call, tmp_path):
    config = config_of("digits", seeds=None, quick=True)
    (tmp_path / "out").mkdir()
    stored = {
        "study": "deep_compression",
        "choose": False,
        "training_data": 0,
        **dataclasses.asdict(config),
    }
    (tmp_path / "out" / "config.json").write_text(json.dumps(stored))
    options = ["--quick", "--bits", "3", "--seeds", "2", "--resume"]
    status, error, _ = call("deep_compression", *options)
    assert status == 1 and "other settings (training_data 0 -> " in error
    assert "bits 4 -> 3)" in error and "seeds" not in error


def test_help_names_the_options_of_a_study(call, capsys):
    with pytest.raises(SystemExit) as stop:
        call("deep_compression", "--help")
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--data", "--resume", "--seeds", "--out", "--clusters"):
        assert option in text
