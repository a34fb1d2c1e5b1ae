# SPDX-License-Identifier: Apache-2.0
"""Measure energy with a hardware counter: ABBA order, fixed work, idle subtracted."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from .._arguments import check_counts
from ._energy import Energy

_LEAST_SECONDS = 10  # NVML's counter advances about ten times a second


class Counter(NamedTuple):
    """A counter of energy.

    Attributes:
      name: what it counts, such as ``"NVML, GPU 0"``.
      start: starts a window.
      stop: ends the window, and returns the joules in it.
    """

    name: str
    start: Callable[[], None]
    stop: Callable[[], float]


def energy(
    variants: Mapping[str, Callable[[], Any]],
    *,
    seconds: float = _LEAST_SECONDS,
    rounds: int = 2,
    counter: Counter | None = None,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Energy]:
    """Measure the energy of one call of each variant with a hardware counter.

    Each window repeats a variant as often as its first calls take to fill ``seconds``:
    fixed work. Windows are in the order A B B A, so that a device that warms up favors
    none. The power of the idle device is measured before and after, and subtracted.
    Everything else that runs on the device counts, too: leave it alone meanwhile.

    Args:
      variants: by name, functions without arguments that return their arrays.
      seconds: length of a window, at least 10.
      rounds: how often to go through A B B A.
      counter: the counter; None looks for one through the package ``zeus``: NVML for a
        GPU, RAPL for a CPU.
      clock: seconds.
      sleep: waits a number of seconds.

    Returns:
      The energy of one call, by variant; unavailable where there is no counter.

    Raises:
      ValueError: for windows below 10 seconds, no round, or no variant.
    """
    check_counts(rounds=rounds)
    if not seconds >= _LEAST_SECONDS:
        raise ValueError(
            f"seconds must be at least {_LEAST_SECONDS}, got {seconds}: counters advance "
            "a few times a second, and power settles slowly."
        )
    if not variants:
        raise ValueError("variants must not be empty: there is nothing to measure.")
    found = find_counter() if counter is None else counter
    if isinstance(found, str):
        return {name: Energy(method="unavailable", source=found) for name in variants}

    def window(work: Callable[[], Any]) -> tuple[float, float]:
        found.start()
        start = clock()
        work()
        return found.stop(), clock() - start

    def repeated(name: str) -> Callable[[], None]:
        def work() -> None:
            for _ in range(calls[name]):
                jax.block_until_ready(variants[name]())

        return work

    calls = {n: _calls(variant, seconds, clock) for n, variant in variants.items()}
    idle = [window(lambda: sleep(seconds))]
    windows: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for name in [*variants, *reversed([*variants])] * rounds:
        windows[name].append(window(repeated(name)))
    idle.append(window(lambda: sleep(seconds)))
    watts = sum(joules for joules, _ in idle) / sum(taken for _, taken in idle)
    return {
        name: _summary(found.name, rows, calls[name], watts)
        for name, rows in windows.items()
    }


def _calls(
    variant: Callable[[], Any], seconds: float, clock: Callable[[], float]
) -> int:
    """Return how many calls fill a window, by the time of a tenth of it."""
    jax.block_until_ready(variant())  # the first call compiles
    calls, start = 0, clock()
    while (taken := clock() - start) < seconds / 10:
        jax.block_until_ready(variant())
        calls += 1
    return math.ceil(1.05 * seconds / taken * calls)


def _summary(
    source: str, rows: list[tuple[float, float]], calls: int, watts: float
) -> Energy:
    net = [(joules - watts * taken) / calls for joules, taken in rows]
    return Energy(
        method="counter",
        source=source,
        joules=statistics.fmean(net),
        spread=statistics.stdev(net),
        windows=len(rows),
        window_seconds=min(taken for _, taken in rows),
        idle_watts=watts,
    )


def find_counter() -> Counter | str:
    """Return the counter of JAX's first device, or why there is none."""
    device = jax.devices()[0]
    if device.platform not in ("cpu", "gpu"):
        return f"there is no counter for {device.platform}"
    try:
        from zeus.monitor import ZeusMonitor  # pyright: ignore[reportMissingImports]
    except ImportError:
        return "the package zeus is not installed"
    on_gpu = device.platform == "gpu"
    try:
        monitor = ZeusMonitor(
            gpu_indices=[device.local_hardware_id] if on_gpu else [],
            cpu_indices=[] if on_gpu else None,
        )
    except (RuntimeError, ValueError) as error:
        return f"zeus cannot read a counter: {error}"
    if not (monitor.gpu_indices if on_gpu else monitor.cpu_indices):
        return f"zeus finds no {'NVML' if on_gpu else 'RAPL'} counter on this machine"
    key = "jaxcompress"

    def stop() -> float:
        # Results have been waited for, so zeus need not.
        measured = monitor.end_window(key, sync_execution=False)
        parts = (measured.gpu_energy, measured.cpu_energy, measured.dram_energy)
        return math.fsum(joules for part in parts for joules in (part or {}).values())

    return Counter(
        f"NVML, GPU {device.local_hardware_id}" if on_gpu else "RAPL, CPU and memory",
        lambda: monitor.begin_window(key, sync_execution=False),
        stop,
    )
