# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from research.common import Options, RunError, UsageError, main


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Results without ``--out`` do not land in the repository."""
    monkeypatch.chdir(tmp_path)


def call(*argv, study=None, **options):
    """The options that a study got, and the exit status."""
    calls: list[Options] = []
    status = main("a_study", "about it", study or calls.append, argv, **options)
    return calls, status


def test_options_have_defaults():
    (options,), status = call()
    assert status == 0
    assert options.data == "digits" and options.seeds is None and options.download
    assert not (options.resume or options.quick or options.choose)
    assert options.out.parts == ("results", "a_study", "digits")


def test_options_are_those_given(tmp_path):
    (options,), _ = call(
        "--data=b", "--seeds=2", "--out", str(tmp_path), "--quick", "--choose",
        "--no-download", data=("a", "b"), chooses=True,
    )  # fmt: skip
    assert (options.data, options.seeds, options.out) == ("b", 2, tmp_path)
    assert options.quick and options.choose and not options.download


def test_a_study_adds_options_of_its_own():
    def add(parser):
        parser.add_argument("--bits", type=int)
        parser.add_argument("--rate", type=float)

    (options,), _ = call("--bits=3", add_options=add)
    assert options.settings == {"bits": 3}


def test_no_seeds_are_refused(capsys):
    assert call("--seeds=0") == ([], 2)
    assert "a_study: --seeds 0: at least 1 is needed." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "options"), [("--choose", {}), ("--data=c", {"data": ("a", "b")})]
)
def test_unknown_options_are_refused(option, options, capsys):
    with pytest.raises(SystemExit) as stop:
        call(option, **options)
    assert stop.value.code == 2
    assert option.split("=")[-1] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status"),
    [(RunError("no such thing"), 1), (UsageError("no such thing"), 2)],
)
def test_an_error_is_one_line(error, status, capsys):
    def study(options):
        raise error

    assert call(study=study)[1] == status
    assert capsys.readouterr().err == "a_study: no such thing\n"


def test_a_study_that_is_stopped_says_how_to_continue(tmp_path, capsys):
    def study(options):
        raise KeyboardInterrupt

    assert call("--out", str(tmp_path), study=study)[1] == 130
    assert "before anything was recorded" in capsys.readouterr().err
    (tmp_path / "config.json").write_text(json.dumps({}))
    assert call("--out", str(tmp_path), study=study)[1] == 130
    assert f"--out {tmp_path} --resume" in capsys.readouterr().err


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        call("--help", chooses=True)
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for option in ("--data", "--resume", "--seeds", "--out", "--quick", "--choose"):
        assert option in text


def test_the_default_folder_is_the_next_free_one(tmp_path):
    for name in ("digits", "digits-2"):
        (tmp_path / "results" / "a_study" / name).mkdir(parents=True)
    assert call()[0][0].out.name == "digits-3"
    assert call("--resume")[0][0].out.name == "digits-2"
