# SPDX-License-Identifier: Apache-2.0
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import report


def slow(x):
    def wait(x):
        time.sleep(0.02)
        return np.asarray(x)

    return jax.pure_callback(wait, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


def test_results_are_waited_for():
    measured = report.latency(slow, jnp.ones(2), runs=5, warmup=1)
    assert 0.02 <= measured.median_seconds <= measured.p90_seconds
    assert measured.compilation == "measured"
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
    assert again.compile_text == again.compilation == "compiled before"
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


def test_dtypes_are_those_of_the_products():
    def fn(x, codes):
        return (x @ x).sum() + (codes @ codes).sum()

    x, codes = jnp.ones((2, 2), jnp.bfloat16), jnp.ones((2, 2), jnp.int8)
    assert report.latency(fn, x, codes, runs=1).dtype == "bfloat16 and int8"
    assert report.latency(lambda x: x + 1, x, runs=1).dtype == "no products"
    # Weights of 4 bits that are decoded first are multiplied as floats.
    tree = jc.compress(jc.weight_quantization(bits=4), {"kernel": jnp.ones((4, 4))})
    x = jnp.ones((2, 4))
    decoded = report.latency(lambda t, x: x @ jc.dense(t)["kernel"], tree, x, runs=1)
    assert decoded.dtype == "float32"


def test_static_arguments_stay_static():
    fn = jax.jit(
        lambda x, n, name: x @ x if name == "a" else x * n, static_argnums=(1, 2)
    )
    assert report.latency(fn, jnp.ones((2, 2)), 3, "a", runs=1).dtype == "float32"
    assert report.latency(fn, jnp.ones((2, 2)), 3, "b", runs=1).dtype == "no products"


def test_compile_seconds_go_with_their_word():
    known: Any = {"median_seconds": 1.0, "p90_seconds": 1.0, "runs": 1, "device": ""}
    for word, seconds in [("measured", None), ("compiled before", 1.0)]:
        with pytest.raises(ValueError, match="if and only if compilation is"):
            report.Latency(compilation=word, compile_seconds=seconds, **known)
    with pytest.raises(ValueError, match="compilation must be one of .*'never'"):
        report.Latency(compilation="never", compile_seconds=None, **known)


def test_exported_files_name_their_runtime(tmp_path):
    def fn(params, x):
        return x @ params["w"]

    params, x = {"w": jnp.eye(4)}, jnp.ones((2, 4))
    made = jc.export.stablehlo(fn, params, None, (x,), tmp_path / "a.stablehlo")
    timed = report.exported_latency(made, np.asarray(x), runs=3)
    assert (timed.runtime, timed.threads, timed.compilation) == ("JAX", 1, "not apart")
    assert 0 < timed.median_seconds <= timed.p90_seconds and timed.dtype == "float32"
    again = report.exported_latency(tmp_path / "a.stablehlo", np.asarray(x), runs=1)
    assert again.dtype == "unknown"
