# SPDX-License-Identifier: Apache-2.0
"""Slower is what is slower beyond the noise, and nothing else."""

import argparse
import json

import pytest

from benchmarks import __main__ as command, _harness, _regressions, _results


class Machine:
    """A clock that work moves."""

    def __init__(self, speed=1.0):
        self.now, self.speed = 0.0, speed

    def work(self, *seconds):
        left = list(seconds)

        def variant():
            left.append(left.pop(0))
            self.now += left[-1] / self.speed

        return variant


def run(small, *, speed=1.0, jitter=0.0, benchmark="b", **settings):
    """A line of the harness: a baseline of a second, and a variant."""
    machine = Machine(speed)
    noisy = [1.0, 1 + jitter, 1 - jitter]
    rows = _harness.measure(
        {"base": machine.work(*noisy), "small": machine.work(small)},
        rounds=9,
        control=machine.work(1.0),
        clock=lambda: machine.now,
    )
    known = {"benchmark": benchmark, "rounds": 9, "quick": False} | settings
    texts = [vars(row) for row in rows]
    return _harness.line(texts, argparse.Namespace(**known))


def verdicts(tmp_path, old, new, capsys=None, options=()):
    for name, lines in (("old", old), ("new", new)):
        (tmp_path / name).write_text("a table\n" + "\n".join(lines) + "\n")
    paths = [tmp_path / "old", tmp_path / "new"]
    changes = _regressions.compare(*map(_results.read, paths))
    status = command.main(["compare", *map(str, paths), *options])
    return {change.row: change.verdict for change in changes}, status


def test_a_slower_variant_is_told(tmp_path, capsys):
    found, status = verdicts(tmp_path, [run(0.5)], [run(0.6)])
    assert found == {"base": "same", "small": "slower"} and status == 1
    out = capsys.readouterr().out
    assert "slower: b: small: +20.0% ratio to the baseline" in out
    assert out.splitlines()[-1] == "1 slower, 0 faster, 1 same"
    found, status = verdicts(tmp_path, [run(0.6)], [run(0.5)])
    assert found == {"base": "same", "small": "faster"} and status == 0


def test_noise_is_not_a_change(tmp_path, capsys):
    old, new = run(0.5, jitter=0.3), run(0.52, jitter=0.3)
    found, status = verdicts(tmp_path, [old], [new], options=["--all"])
    assert found["small"] == "same" and status == 0
    assert "same: b: small" in capsys.readouterr().out
    # Without the noise of the baseline it is one.
    assert verdicts(tmp_path, [run(0.5)], [run(0.52)])[0]["small"] == "slower"
    # A second run that is as slow as the new one says that runs differ.
    found, _ = verdicts(tmp_path, [run(0.5), run(0.52)], [run(0.52)])
    assert found["small"] == "same"


def test_a_slower_baseline_is_told_on_the_same_machine_only(tmp_path):
    slow = run(0.5, speed=0.5)
    assert verdicts(tmp_path, [run(0.5)], [slow])[0] == {
        "base": "slower",
        "small": "same",
    }
    elsewhere = json.dumps(json.loads(slow) | {"device": "gpu: x"})
    found, status = verdicts(tmp_path, [run(0.5)], [elsewhere])
    assert found == {"base": "on other machines", "small": "same"} and status == 0


def test_other_settings_are_other_benchmarks(tmp_path, capsys):
    found, status = verdicts(tmp_path, [run(0.5, width=1)], [run(0.9, width=2)])
    assert found == {"all rows": "only in NEW"} and status == 0
    out = capsys.readouterr().out
    assert "only in OLD: b width=1" in out and "only in NEW: b width=2" in out


def test_rows_that_are_counts_are_not_timed(tmp_path):
    line = json.loads(run(0.5)) | {"rows": [{"name": "files", "damaged": 3}]}
    assert verdicts(tmp_path, [json.dumps(line)], [json.dumps(line)]) == (
        {"files": "not timed"},
        0,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a table", "holds no line of JSON"),
        ("{", "line 1: Expecting"),
        ('{"rows": []}', "line 1: it is no line of a benchmark"),
    ],
)
def test_damaged_files_are_named(tmp_path, capsys, text, message):
    (tmp_path / "old").write_text(text)
    assert command.main(["compare", *[str(tmp_path / "old")] * 2]) == 2
    assert message in capsys.readouterr().err


def test_quick_numbers_are_refused(tmp_path, capsys):
    (tmp_path / "old").write_text(run(0.5, quick=True))
    assert command.main(["compare", *[str(tmp_path / "old")] * 2]) == 2
    assert "numbers of --quick mean nothing" in capsys.readouterr().err


def test_benchmarks_are_listed(capsys):
    assert command.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in command.names())
    assert "How long a training step takes to trace and compile" in out
    assert command.main(["nothing"]) == 2
    assert "'nothing' is no benchmark" in capsys.readouterr().err


def test_a_benchmark_runs_by_its_name(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["threshold", "--help"])
    assert stopped.value.code == 0
    assert "python -m benchmarks.threshold" in capsys.readouterr().out
