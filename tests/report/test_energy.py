# SPDX-License-Identifier: Apache-2.0
import sys
import types

import jax.numpy as jnp
import pytest
from draws import normal

import jaxcompress as jc
from jaxcompress import report
from jaxcompress.report import Counter, Energy
from jaxcompress.report._energy_model import PICOJOULES


class FakeMachine:
    """A clock and a counter that work moves: no test here looks at real time."""

    IDLE_WATTS = 50.0

    def __init__(self):
        self.now, self.joules, self.windows = 0.0, 0.0, []
        self.counter = Counter("fake", self.start, self.stop)

    def clock(self):
        return self.now

    def sleep(self, seconds, watts=0.0):
        self.now += seconds
        self.joules += seconds * (self.IDLE_WATTS + watts)

    def start(self):
        self.windows.append([self.joules])

    def stop(self):
        self.windows[-1].append(self.joules)
        return self.joules - self.windows[-1][0]

    def work(self, name, seconds, watts, log):
        def call():
            log.append((name, len(self.windows)))
            self.sleep(seconds, watts)

        return call


def measure(machine, variants, **kwargs):
    return report.energy(
        variants,
        counter=machine.counter,
        clock=machine.clock,
        sleep=machine.sleep,
        **kwargs,
    )


def test_idle_power_is_subtracted_and_calls_are_counted():
    machine, log = FakeMachine(), []
    variants = {
        "a": machine.work("a", 0.5, 200.0, log),
        "b": machine.work("b", 0.25, 100.0, log),
    }
    found = measure(machine, variants, rounds=3)
    assert found["a"].joules == pytest.approx(0.5 * 200)
    assert found["b"].joules == pytest.approx(0.25 * 100)
    for energy in found.values():
        assert (energy.method, energy.source) == ("counter", "fake")
        assert energy.idle_watts == pytest.approx(machine.IDLE_WATTS)
        assert energy.windows == 6 and energy.spread == pytest.approx(0, abs=1e-9)
        assert energy.window_seconds is not None and energy.window_seconds >= 10
    # Before the windows the calls are only timed; the first and the last window are idle.
    order = list(dict.fromkeys(entry for entry in log if entry[1]))
    assert [name for name, _ in order] == ["a", "b", "b", "a"] * 3
    assert [number for _, number in order] == list(range(2, 14))
    assert len(machine.windows) == 14
    numbers = {entry: log.count(entry) for entry in order}
    assert len({n for (name, _), n in numbers.items() if name == "a"}) == 1


def test_a_device_that_drifts_favors_none():
    machine, log = FakeMachine(), []

    def drifting():
        log.append(1)
        machine.sleep(1.0, 10.0 + machine.now)

    found = measure(machine, {"a": drifting, "b": drifting}, rounds=1)
    a, b = (found[name].joules for name in "ab")
    assert a == pytest.approx(b, rel=1e-6)
    assert (found["a"].spread or 0) > 1


def test_windows_that_are_too_short_are_refused():
    for seconds in (1.0, float("nan")):
        with pytest.raises(ValueError, match="seconds must be at least 10"):
            report.energy({"a": lambda: None}, seconds=seconds)
    with pytest.raises(ValueError, match="rounds must be at least 1"):
        report.energy({"a": lambda: None}, rounds=0)
    with pytest.raises(ValueError, match="variants must not be empty"):
        report.energy({})


def zeus(monkeypatch, monitor):
    module = types.ModuleType("zeus.monitor")
    module.__dict__["ZeusMonitor"] = monitor
    monkeypatch.setitem(sys.modules, "zeus", types.ModuleType("zeus"))
    monkeypatch.setitem(sys.modules, "zeus.monitor", module)


def test_without_a_counter_energy_is_unavailable(monkeypatch):
    def never():
        raise AssertionError("there is nothing to measure it with")

    monkeypatch.setitem(sys.modules, "zeus.monitor", None)
    (energy,) = report.energy({"a": never}).values()
    assert energy == Energy(source="the package zeus is not installed")
    assert str(energy) == "unavailable (the package zeus is not installed)"
    empty = types.SimpleNamespace(gpu_indices=[], cpu_indices=[])
    zeus(monkeypatch, lambda **kwargs: empty)
    assert "no RAPL counter" in report.energy({"a": never})["a"].source

    def refuse(**kwargs):
        raise RuntimeError("root is required")

    zeus(monkeypatch, refuse)
    assert "root is required" in report.energy({"a": never})["a"].source


def test_zeus_counts_the_processor_and_its_memory(monkeypatch):
    machine, asked = FakeMachine(), []

    class Monitor:
        cpu_indices = (0, 1)

        def __init__(self, **kwargs):
            asked.append(kwargs)

        def begin_window(self, key, sync_execution):
            self.begin = machine.joules

        def end_window(self, key, sync_execution):
            used = machine.joules - self.begin
            return types.SimpleNamespace(
                gpu_energy={},
                cpu_energy={0: used / 2, 1: used / 4},
                dram_energy={0: used / 4},
            )

    zeus(monkeypatch, Monitor)
    work = machine.work("a", 0.5, 20.0, [])
    found = report.energy({"a": work}, clock=machine.clock, sleep=machine.sleep)["a"]
    assert found.joules == pytest.approx(10) and found.source == "RAPL, CPU and memory"
    assert asked == [{"gpu_indices": [], "cpu_indices": None}]


def test_no_energy_without_a_method():
    with pytest.raises(ValueError, match="if and only if the method is 'counter'"):
        Energy(joules=1.0)
    with pytest.raises(ValueError, match="if and only if the method is 'counter'"):
        Energy(method="counter", source="NVML")
    with pytest.raises(ValueError, match="must be one of .*, got 'guess'"):
        Energy(method="guess")


def test_the_model_by_hand():
    params = {"w": normal(64, 32), "b": normal(32)}

    def fn(params, x):
        return x @ params["w"] + params["b"][None]

    dense = report.energy_model(jc.count(fn, params, jnp.ones((2, 64))))
    assert dense.no_gain == dense.full_gain
    macs, weights, activations = 2 * 64 * 32, 64 * 32 + 32, 2 * (64 + 32)
    parts = dense.no_gain
    assert parts.compute == pytest.approx(macs * (3.7 + 0.9) * 1e-12)
    assert parts.on_chip == pytest.approx(4 * (weights + activations) / 8 * 100e-12)
    assert parts.dram == pytest.approx(4 * weights / 8 * 1300e-12)
    assert parts.joules == parts.compute + parts.on_chip + parts.dram


def test_only_the_full_gain_sees_zeros_and_bits():
    params = {"w": normal(64, 32)}
    half = jc.chain(jc.magnitude_pruning(0.5), jc.weight_quantization(bits=4))

    def fn(params, x):
        return x @ params["w"]

    x = jnp.ones((2, 64))
    policy = jc.program.ActivationQuantizer()
    dense, small = (
        report.energy_model(jc.count(fn, p, x, policy=lambda point: policy))
        for p in (params, jc.compress(half, params))
    )
    assert small.no_gain == dense.no_gain
    product = 0.2 * 4 * 8 / 64 + 0.1
    wanted = 2 * 64 * 32 / 2 * product * 1e-12
    assert small.full_gain.compute == pytest.approx(wanted, rel=1e-3)
    assert small.full_gain.dram == pytest.approx(dense.no_gain.dram / 16, rel=1e-3)


def test_the_table_agrees_that_multiplying_is_quadratic():
    # What the model says of few bits: the energy is in proportion to the bits squared.
    eight, wide = PICOJOULES["int8 multiply"] / 64, PICOJOULES["int32 multiply"] / 1024
    assert wide == pytest.approx(eight, rel=0.04)
