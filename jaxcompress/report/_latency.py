# SPDX-License-Identifier: Apache-2.0
"""Latency: the run time of a compiled function, with compile time measured separately."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from .. import program
from .._arguments import check_whole

_COMPILED = "/jax/core/compile/backend_compile_duration"  # JAX reports each compilation
_COMPILATIONS = ("measured", "compiled before", "not apart")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latency:
    """Wall-clock times of one function on one device, as measured by ``latency``.

    Attributes:
      median_seconds: median time of a run.
      p90_seconds: 90th percentile of the run times.
      runs: number of timed runs.
      compilation: ``"measured"``; ``"compiled before"`` if the function was compiled for
        these arguments before, so that there was nothing left to measure; ``"not apart"``
        for a runtime that does not compile, or not apart from loading the file.
      compile_seconds: time to trace and compile once, if it was measured, else None. If
        JAX's persistent cache of programs is on, it may be the time to read one.
      device: device that ran it, such as ``"cpu: cpu"``.
      runtime: what ran it, such as ``"JAX"`` or ``"ONNX Runtime"``.
      dtype: dtypes that products were computed in, such as ``"float32"``, or
        ``"unknown"``.
      threads: threads of the runtime; None leaves it to the runtime.

    Raises:
      ValueError: unless there are compile seconds if and only if they were measured.
    """

    median_seconds: float
    p90_seconds: float
    runs: int
    compilation: str
    compile_seconds: float | None
    device: str
    runtime: str = "JAX"
    dtype: str = "unknown"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.compilation not in _COMPILATIONS:
            raise ValueError(
                f"compilation must be one of {_COMPILATIONS}, got {self.compilation!r}."
            )
        if (self.compilation == "measured") != (self.compile_seconds is not None):
            raise ValueError(
                "compile_seconds must be given if and only if compilation is 'measured', "
                f"got {self.compilation!r} and {self.compile_seconds}."
            )

    @property
    def compile_text(self) -> str:
        """Compile time, or why there is none."""
        if self.compile_seconds is None:
            return self.compilation
        return f"{self.compile_seconds:.2f} s"

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} threads"
        return (
            f"median {1e3 * self.median_seconds:.3f} ms, p90 "
            f"{1e3 * self.p90_seconds:.3f} ms of {self.runs} runs ({self.runtime} on "
            f"{self.device}{threads}, products in {self.dtype}); compilation: "
            f"{self.compile_text}"
        )


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
      >>> 0 < measured.median_seconds <= measured.p90_seconds, measured.dtype
      (True, 'float32')
    """
    check_runs(runs, warmup)
    jitted: Any = fn if hasattr(fn, "lower") else jax.jit(fn)
    compile_seconds = _compile_seconds(lambda: jitted.lower(*args).compile())
    timed, output = timed_runs(
        lambda: jax.block_until_ready(jitted(*args)), runs, warmup
    )
    return Latency(
        median_seconds=float(np.median(timed)),
        p90_seconds=float(np.quantile(timed, 0.9)),
        runs=runs,
        compilation="compiled before" if compile_seconds is None else "measured",
        compile_seconds=compile_seconds,
        device=_device_of(output),
        dtype=_product_dtypes(jitted, args),
    )


def check_runs(runs: int, warmup: int) -> None:
    """Refuse numbers of runs that make no sense."""
    check_whole(runs=runs, warmup=warmup)
    if runs < 1 or warmup < 0:
        raise ValueError(
            "runs must be at least 1 and warmup must not be negative, got "
            f"runs={runs}, warmup={warmup}."
        )


def timed_runs(
    run: Callable[[], Any], runs: int, warmup: int
) -> tuple[list[float], Any]:
    """Time runs, and return the last output."""
    seconds, output = [], None
    for _ in range(warmup + runs):
        start = time.perf_counter()
        output = run()
        seconds.append(time.perf_counter() - start)
    return seconds[warmup:], output


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


def _product_dtypes(jitted: Callable[..., Any], args: tuple[Any, ...]) -> str:
    """Name the dtypes of the operands of products, from the traced program."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is not entered is not the question here
        # The arguments are closed over, because some of them may be static.
        found = program.sites(lambda _: jitted(*args), ())
    products = [site for site in found if site.primitive != "gather"]
    names = sorted({x.dtype.name for site in products for x in site.operands})
    if found.opaque:
        names.append("unknown parts")
    return " and ".join(names) or "no products"


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
