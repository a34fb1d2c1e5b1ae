# SPDX-License-Identifier: Apache-2.0
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcompress import report


def slow(x):
    def wait(x):
        time.sleep(0.02)
        return np.asarray(x)

    return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def test_results_are_waited_for():
    measured = report.latency(slow, jnp.ones(2), runs=5, warmup=1)
    assert 0.02 <= measured.median_seconds <= measured.p90_seconds
    assert measured.compile_seconds is not None and measured.compile_seconds > 0
    assert measured.runs == 5


def test_every_run_is_made_and_compiled_once():
    traces, calls = [], []

    def fn(x):
        traces.append(1)
        jax.debug.callback(lambda: calls.append(1))
        return x + 1

    report.latency(jax.jit(fn), jnp.ones(2), runs=4, warmup=2)
    jax.effects_barrier()
    assert (len(traces), len(calls)) == (1, 6)


def test_what_was_compiled_before_has_no_compile_time():
    fn, x = jax.jit(lambda x: jnp.sin(x) @ x), jnp.ones((3, 3))
    first, again = (report.latency(fn, x, runs=1) for _ in range(2))
    assert first.compile_seconds is not None and again.compile_seconds is None
    fresh = jax.jit(lambda x: jnp.cos(x) @ x)
    fresh(x)
    assert report.latency(fresh, x, runs=1).compile_seconds is None
    other = report.latency(fresh, jnp.ones((4, 4)), runs=1)  # another program
    assert other.compile_seconds is not None


def test_the_device_is_named():
    device = jax.devices()[0]
    measured = report.latency(lambda x: x, jnp.ones(2), runs=1, warmup=0)
    assert measured.device == f"{device.platform}: {device.device_kind}"


def test_no_runs_are_refused():
    with pytest.raises(ValueError, match="runs=0"):
        report.latency(lambda x: x, 1.0, runs=0)
