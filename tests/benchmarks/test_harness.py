# SPDX-License-Identifier: Apache-2.0
import argparse
import json

import pytest

from benchmarks import _harness


class FakeMachine:
    """A clock, and work that moves it: no test here looks at real time."""

    def __init__(self):
        self.now = 0.0
        self.calls = []

    def clock(self):
        return self.now

    def work(self, name, *seconds):
        """A variant that takes these seconds, the last of them from then on."""
        left = list(seconds)

        def variant():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return variant


def measure(machine, variants, **kwargs):
    return _harness.measure(variants, clock=machine.clock, **kwargs)


def test_times_and_ratios_are_those_of_the_rounds():
    machine = FakeMachine()
    # First call, warm-up, then the rounds. The control keeps "a (again)" apart.
    variants = {
        "a": machine.work("a", 9, 5, 1, 2, 4),
        "b": machine.work("b", 7, 5, 2, 6, 16),
    }
    control = machine.work("again", 1)
    a, again, b = measure(machine, variants, rounds=3, control=control)
    assert [row.name for row in (a, again, b)] == ["a", "a (again)", "b"]
    assert (a.first, b.first) == (9, 7)
    assert (b.minimum, b.median) == (2, 6)
    assert b.p90 == pytest.approx(14)  # 6 + 0.8 * (16 - 6)
    assert a.ratio == (1, 1, 1)
    assert b.ratio == (2.5, 3, 3.5)  # of 2, 3 and 4


def test_the_ratio_is_paired_within_a_round():
    machine = FakeMachine()
    # Twice as slow in every round, while the machine slows down up to a thousandfold: the
    # ratio of the medians would say so as well, the quartiles of unpaired ones not.
    slowing = [1, 1, 100, 1, 1000, 10]
    variants = {
        "a": machine.work("a", *slowing),
        "b": machine.work("b", *[2 * s for s in slowing]),
    }
    *_, b = measure(machine, variants, rounds=4, control=machine.work("again", 1))
    assert b.ratio == (2, 2, 2)


def test_the_baseline_runs_a_second_time_for_the_noise_floor():
    machine = FakeMachine()
    rows = measure(
        machine, {"a": machine.work("a", 3), "b": machine.work("b", 1)}, rounds=5
    )
    assert rows[1].name == "a (again)"
    assert rows[1].ratio == (1, 1, 1)
    assert machine.calls.count("a") == 2 * machine.calls.count("b")


def test_a_control_takes_the_second_entry():
    machine = FakeMachine()
    _, again = measure(
        machine,
        {"a": machine.work("a", 2)},
        rounds=2,
        control=machine.work("control", 3),
    )
    assert again.ratio == (1.5, 1.5, 1.5)
    assert machine.calls.count("control") == machine.calls.count("a") == 4


def test_every_round_has_all_variants_in_changing_order():
    machine = FakeMachine()
    names = ["a", "b", "c"]
    control = machine.work("again", 1)
    measure(machine, {n: machine.work(n, 1) for n in names}, rounds=20, control=control)
    first, warm_up, *rounds = [machine.calls[i : i + 4] for i in range(0, 88, 4)]
    assert first == warm_up == ["a", "again", "b", "c"]
    assert len(rounds) == 20
    assert all(sorted(order) == sorted(first) for order in rounds)
    assert len({order[0] for order in rounds}) == 4


def test_times_are_per_unit_and_the_first_call_is_whole():
    machine = FakeMachine()
    row, _ = measure(machine, {"a": machine.work("a", 10)}, rounds=2, units=5)
    assert (row.first, row.minimum, row.median, row.p90) == (10, 2, 2, 2)


def test_the_clock_runs_until_the_arrays_are_ready():
    machine = FakeMachine()

    class Array:
        def block_until_ready(self):
            machine.now += 4
            return self

    def dispatch():
        machine.now += 1
        return {"result": Array()}

    row, _ = measure(machine, {"a": dispatch}, rounds=2)
    assert row.median == 5


def test_without_warm_up_the_rounds_follow_the_first_call():
    machine = FakeMachine()
    row, _ = measure(
        machine,
        {"a": machine.work("a", 9, 1, 3)},
        rounds=2,
        warm_up=False,
        control=machine.work("again", 1),
    )
    assert (row.first, row.minimum, row.median) == (9, 1, 2)


def test_bad_arguments():
    machine = FakeMachine()
    variants = {"a": machine.work("a", 1)}
    with pytest.raises(ValueError, match="rounds=1: quartiles take 2"):
        measure(machine, variants, rounds=1)
    with pytest.raises(ValueError, match=r"aims for \['b'\], which are no variants"):
        measure(machine, variants, rounds=2, aims={"b": "<= 1"})
    assert machine.calls == []


def test_the_command_line_settles_the_rounds(capsys):
    def parse(*argv):
        return _harness.parse(_harness.parser("x", "About x.", rounds=30), argv)

    assert parse().rounds == 30
    assert parse("--quick").rounds == 2
    assert parse("--quick", "--rounds", "7").rounds == 7
    with pytest.raises(SystemExit):
        parse("--rounds", "1")
    assert "--rounds 1: quartiles take 2 or more" in capsys.readouterr().err


def test_the_table_is_aligned_and_the_last_line_is_json(capsys):
    machine = FakeMachine()
    rows = measure(
        machine,
        {"a": machine.work("a", 0.25), "much longer": machine.work("b", 0.5)},
        rounds=2,
        aims={"much longer": "<= 3"},
    )
    settings = argparse.Namespace(
        benchmark="x", rounds=2, quick=True, output=None, options=[]
    )
    _harness.show(rows, settings)
    *lines, last = capsys.readouterr().out.splitlines()
    points = [[i for i, x in enumerate(line) if x == "."] for line in lines[1:]]
    assert points[0] == points[1] == points[2]
    assert lines[3].split() == [
        *("much", "longer", "500.00", "500.00", "500.00", "500.00"),
        *("2.000", "[2.000,", "2.000]", "<=", "3"),
    ]
    known = json.loads(last)
    assert known["benchmark"] == "x"
    assert known["rows"][2]["ratio"] == [2, 2, 2]
    assert {"device", "machine", "cpu_count", "versions", "commit"} <= known.keys()
    assert {"python", "jax", "jaxlib", "jaxcompress"} <= known["versions"].keys()
