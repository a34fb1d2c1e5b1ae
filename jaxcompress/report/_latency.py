# SPDX-License-Identifier: Apache-2.0
"""Latency: how long a compiled function takes, compilation apart."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Wall-clock times of one function on one device.

    Attributes:
      median_seconds: half of the runs took no longer.
      p90_seconds: nine in ten runs took no longer.
      runs: how many were timed.
      compile_seconds: tracing and compiling, once.
      device: where it ran, such as ``"cpu: cpu"``.
    """

    median_seconds: float
    p90_seconds: float
    runs: int
    compile_seconds: float
    device: str


def latency(
    fn: Callable[..., Any], *args: Any, runs: int = 30, warmup: int = 3
) -> Latency:
    """Time a function, each run until its results are ready.

    Args:
      fn: jitted, or it will be.
      *args: what to call it with. NumPy arrays are copied to the device in every run;
        pass JAX arrays to leave that out.
      runs: how many to time.
      warmup: how many to run before, untimed.

    Raises:
      ValueError: if ``runs`` is below 1 or ``warmup`` is negative.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxcompress import report
      >>> measured = report.latency(lambda x: x @ x, jnp.ones((8, 8)), runs=5)
      >>> 0 < measured.median_seconds <= measured.p90_seconds
      True
    """
    if runs < 1 or warmup < 0:
        raise ValueError(
            f"runs={runs}, warmup={warmup}: time 1 run or more, warm up >= 0."
        )
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    start = time.perf_counter()
    jitted.lower(*args).compile()
    compile_seconds = time.perf_counter() - start

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


def describe(device: Any) -> str:
    """Platform and kind of a device: ``"cpu: cpu"``, ``"gpu: NVIDIA H100"``."""
    return f"{device.platform}: {device.device_kind}"


def _device_of(output: Any) -> str:
    used = [x.devices() for x in jax.tree.leaves(output) if isinstance(x, jax.Array)]
    devices = set().union(*used) or {jax.devices()[0]}
    names = sorted(set(map(describe, devices)))
    count = f"{len(devices)} x " if len(devices) > 1 else ""
    return count + ", ".join(names)
