# SPDX-License-Identifier: Apache-2.0
"""Damaged files are refused or harmless, and a kill loses nothing that was reported."""

import json

import numpy as np
import pytest

from benchmarks import damage
from benchmarks._kinds import KINDS, Kind

every_kind = pytest.mark.parametrize("name", KINDS)
# Orbax's threads complain when a read fails halfway.
may_complain = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


@every_kind
@may_complain
def test_damage_is_refused_or_harmless(name, tmp_path):
    for title, outcomes in damage.damage(name, tmp_path, rounds=14).items():
        assert outcomes.keys() <= {"refused", "same values"}, title
        assert outcomes["refused"], title


@pytest.mark.slow
@every_kind
def test_a_killed_writer_loses_nothing(name, tmp_path):
    outcomes = damage.kill(name, tmp_path, kills=2)
    assert not outcomes.keys() & set(damage.FAILURES) and outcomes["whole"] == 2


def plain(**changes):
    """A kind without checksums, that overwrites its file in place."""

    def add(folder, number):
        np.save(folder / "x.npy", np.full(2000, number))

    def read(folder):
        x = np.load(folder / "x.npy")
        return {int(x[0]): x.tobytes()}

    return Kind(**{
        "add": add, "read": read, "content": lambda n: np.full(2000, n).tobytes(),
        "refuses": ValueError, "left_over": None, "keeps_all": False, **changes,
    })  # fmt: skip


@pytest.fixture
def unguarded(monkeypatch):
    monkeypatch.setitem(KINDS, "plain", plain())


@pytest.mark.usefixtures("unguarded")
def test_a_kind_without_checksums_is_found_out(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        # `choices` of the command are the kinds, of which this is one now.
        damage.main(["--quick", "--rounds", "20", "--kills", "0", "--kinds", "plain"])
    assert stopped.value.code == 1
    known = json.loads(capsys.readouterr().out.splitlines()[-1])
    outcomes = {row["name"]: row["outcomes"] for row in known["rows"]}
    assert outcomes["plain: flip"]["other values"] > 10
    assert sum(outcomes["plain: cut"].values()) == 20


def test_an_oracle_that_is_wrong_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS, "plain", plain(content=lambda number: b""))
    with pytest.raises(RuntimeError, match="plain: what was written is not what is"):
        damage.damage("plain", tmp_path, rounds=1)
