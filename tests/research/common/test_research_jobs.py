# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
from functools import partial

import pytest

from research import common
from research.common._ledger import Ledger
from research.common._session import Session


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    name: str
    seed: int
    accuracy: float


@dataclasses.dataclass(frozen=True)
class Config:
    seeds: int = 2
    quick: bool = False


class Study:
    """A study that counts what it trains, and stops once at a job."""

    def __init__(self, stop=""):
        self.stop, self.ran = stop, []

    def job(self, name, seed):
        if name == self.stop:
            self.stop = ""
            raise KeyboardInterrupt
        self.ran.append((name, seed))
        return [Record(name=name, seed=seed, accuracy=(seed + 1) / 3)]

    def jobs(self, records):
        def best(seed):
            name = max(records, key=lambda r: r.accuracy).name
            return [Record(name=f"after {name}", seed=seed, accuracy=1.0)]

        for name in ("a", "b", "c"):
            for seed in range(2):
                yield common.Job(f"{name}, {seed}", partial(self.job, name, seed))
        yield common.Job("control", partial(best, 0))

    def run(self, options):
        session = Session(options, Config())
        records = session.run(Record, self.jobs)
        session.finish(common.summary(records, ["name"]), "table", lambda file: None)

    def main(self, out, *argv):
        return common.main("a_study", "", self.run, ["--out", str(out), *argv])


def records(out):
    return json.loads((out / "results.json").read_text())["records"]


def test_a_stopped_study_continues_to_the_same_results(tmp_path, capsys):
    whole, stopped = Study(), Study(stop="b")
    assert whole.main(tmp_path / "whole") == 0
    assert stopped.main(tmp_path / "out") == 130
    assert stopped.ran == [("a", 0), ("a", 1)]
    assert not (tmp_path / "out" / "results.json").exists()
    assert stopped.main(tmp_path / "out", "--resume") == 0
    assert stopped.ran == whole.ran  # nothing was trained twice
    assert records(tmp_path / "out") == records(tmp_path / "whole")
    assert records(tmp_path / "out")[-1]["name"] == "after a"
    assert "Results:" in capsys.readouterr().out


def test_a_finished_study_repeats_nothing(tmp_path):
    study = Study()
    assert study.main(tmp_path / "out") == 0
    trained, seconds = list(study.ran), _seconds(tmp_path / "out")
    assert study.main(tmp_path / "out", "--resume") == 0
    assert study.ran == trained and len(records(tmp_path / "out")) == 7
    assert 0 < seconds and 0 < _seconds(tmp_path / "out")


def _seconds(out):
    return json.loads((out / "results.json").read_text())["seconds"]


def test_another_data_set_or_question_is_not_continued(tmp_path, capsys):
    study, out = Study(), tmp_path / "out"
    assert study.main(out) == 0
    settings = json.loads((out / "config.json").read_text())
    other = {**settings, "training_data": 0}
    (out / "config.json").write_text(json.dumps(other))
    assert study.main(out, "--resume") == 1
    assert "other settings (training_data 0 -> " in capsys.readouterr().err
    (out / "config.json").write_text(json.dumps({**settings, "choose": True}))
    assert study.main(out, "--resume") == 1
    assert "other settings (choose True -> False)" in capsys.readouterr().err


def test_a_job_whose_file_is_gone_runs_again(tmp_path):
    folder, file, calls = common.Folder(tmp_path), tmp_path / "network", []

    def make():
        calls.append(1)
        file.write_text("")
        return len(calls)

    assert Ledger(folder, "records.json").result("a", make, files=[file]) == 1
    assert Ledger(folder, "records.json").result("a", make, files=[file]) == 1
    file.unlink()
    assert Ledger(folder, "records.json").result("a", make, files=[file]) == 2
    assert Ledger(folder, "records.json").result("a", make, files=[file]) == 2


def test_earlier_seconds_are_those_of_what_was_recorded(tmp_path):
    folder = common.Folder(tmp_path)
    entries = {name: {"seconds": 5.0, "result": 1} for name in ("a", "b")}
    folder.write("records.json", entries)
    ledger = Ledger(folder, "records.json")
    assert ledger.result("a", lambda: 2) == 1 and ledger.result("c", lambda: 3) == 3
    assert ledger.earlier_seconds == 5.0


def test_two_jobs_of_one_name_are_refused(tmp_path):
    ledger = Ledger(common.Folder(tmp_path), "records.json")
    ledger.result("a", lambda: 1)
    with pytest.raises(ValueError, match="two results of one run are named 'a'"):
        ledger.result("a", lambda: 2)
