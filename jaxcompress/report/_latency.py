# SPDX-License-Identifier: Apache-2.0
"""Latency: the run time of a compiled function, with compile time measured separately."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .._arguments import check_whole

_COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX reports each compilation


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Wall-clock times of one function on one device, as measured by ``latency``.

    Attributes:
      median_seconds: median time of a run.
      p90_seconds: 90th percentile of the run times.
      runs: number of timed runs.
      compile_seconds: time to trace and compile once; None if the function was compiled
        for these arguments before, so that there was nothing left to measure. If JAX's
        persistent cache of programs is on, it may be the time to read one.
      device: device that ran it, such as ``"cpu: cpu"``.
    """

    median_seconds: float
    p90_seconds: float
    runs: int
    compile_seconds: float | None
    device: str


def latency(
    fn: Callable[..., Any], *args: Any, runs: int = 30, warmup: int = 3
) -> Latency:
    """Benchmark a function: time each run until its results are ready.

    Args:
      fn: function to time; jitted unless it already is. To measure its compile time,
        pass one that was not called with such arguments before.
      *args: arguments of the function. NumPy arrays are copied to the device in every
        run; pass JAX arrays to leave the copy out of the timing.
      runs: number of timed runs.
      warmup: number of untimed runs before them.

    Raises:
      ValueError: if ``runs`` is below 1 or ``warmup`` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcompress import report
      >>> measured = report.latency(lambda x: x @ x, jnp.ones((8, 8)), runs=5)
      >>> 0 < measured.median_seconds <= measured.p90_seconds
      True
    """
    check_whole(runs=runs, warmup=warmup)
    if runs < 1 or warmup < 0:
        raise ValueError(
            "runs must be at least 1 and warmup must not be negative, got "
            f"runs={runs}, warmup={warmup}."
        )
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    compile_seconds = _compile_seconds(lambda: jitted.lower(*args).compile())
    seconds, output = [], None
    for _ in range(warmup + runs):
        start = time.perf_counter()
        output = jax.block_until_ready(jitted(*args))
        seconds.append(time.perf_counter() - start)
    timed = seconds[warmup:]
    return Latency(
        median_seconds=float(np.median(timed)),
        p90_seconds=float(np.quantile(timed, 0.9)),
        runs=runs,
        compile_seconds=compile_seconds,
        device=_device_of(output),
    )


def _compile_seconds(compile_fn: Callable[[], Any]) -> float | None:
    """Time a compilation; None if JAX finds it among what it has compiled."""
    events = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        del duration_secs, kwargs
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        start = time.perf_counter()
        compile_fn()
        seconds = time.perf_counter() - start
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return seconds if _COMPILED in events else None


def describe(device: Any) -> str:
    """Return the platform and kind of a device, such as ``"gpu: NVIDIA H100"``."""
    return f"{device.platform}: {device.device_kind}"


def _device_of(output: Any) -> str:
    by_array = [
        x.devices() for x in jax.tree.leaves(output) if isinstance(x, jax.Array)
    ]
    devices = set().union(*by_array) or {jax.devices()[0]}
    names = sorted(set(map(describe, devices)))
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    return count + ", ".join(names)
