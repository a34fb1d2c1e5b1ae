# SPDX-License-Identifier: Apache-2.0
"""Records for tests, made by hand and drawn."""

import functools
from typing import Any

import jax.numpy as jnp
from draws import normal
from hypothesis import strategies as st

import jaxcompress as jc
from jaxcompress import report
from jaxcompress.report import Energy, Latency, Memory, Metric, Provenance, Record

WHERE = Provenance(
    versions={"jax": "1"}, device="cpu: cpu", commit=None, transforms=["prune 90 %"]
)


def timed(median, **changes):
    known = {"compilation": "measured", "compile_seconds": 1.5, "device": "cpu: cpu"}
    known |= {"median_seconds": median, "p90_seconds": 2 * median, "runs": 9}
    return Latency(**(known | changes))


def accurate(name, values, **changes: Any):
    """A record of accuracies, one per seed."""
    if len(values):
        metric = report.accuracy(values, range(len(values)), split="test")
        changes.setdefault("metrics", [metric])
    changes.setdefault("provenance", WHERE)
    return Record(name=name, **changes)


@functools.cache
def measured():
    """A size and a count of the same small network, with 4-bit weights."""
    w = normal(64, 32)
    params = jc.compress(jc.weight_quantization(bits=4), {"kernel": w, "b": w[0]})

    def fn(params, x):
        return x @ params["kernel"] + params["b"][None]

    counted = jc.count(fn, params, jnp.ones((2, 64)))
    return report.size(params), counted


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
POSITIVE = st.floats(0, 1e9)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
MAYBE = st.none() | POSITIVE


def _energy(joules):
    return Energy(
        method="counter",
        source="NVML",
        joules=joules,
        spread=1.0,
        windows=4,
        window_seconds=10.0,
        idle_watts=70.0,
    )


METRICS = st.builds(
    lambda values, **fields: Metric(values=values, seeds=range(len(values)), **fields),
    values=st.lists(FINITE, min_size=1, max_size=4),
    name=TEXT,
    split=TEXT,
    unit=TEXT.filter(lambda unit: unit != "fraction"),
    higher_is_better=st.booleans(),
)
RECORDS = st.builds(
    Record,
    name=TEXT,
    provenance=st.just(WHERE),
    metrics=st.lists(METRICS, max_size=3, unique_by=lambda m: (m.name, m.split)),
    size=st.none() | st.builds(lambda: measured()[0]),
    batch=st.none() | st.integers(1, 99),
    count=st.none() | st.builds(lambda: measured()[1]),
    latency=st.none()
    | st.builds(
        timed,
        POSITIVE,
        runtime=st.sampled_from(["JAX", "LiteRT"]),
        device=TEXT,
        threads=st.none() | st.integers(1, 9),
    ),
    memory=st.none() | st.builds(Memory, peak_bytes=st.integers(0), method=TEXT),
    energy=st.just(Energy()) | st.builds(_energy, FINITE),
    energy_model=st.none() | st.builds(lambda: report.energy_model(measured()[1])),
    training_seconds=MAYBE,
    simulated=st.booleans(),
)
