# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import statistics

import jax.numpy as jnp
import pytest
from draws import normal
from hypothesis import given, strategies as st

from jaxcompress import report
from jaxcompress.report import Accuracy, Energy, Latency, Provenance, Record, markdown

WHERE = Provenance(
    versions={"jax": "1"}, device="cpu: cpu", commit=None, transforms=["prune 90 %"]
)
FRACTIONS = st.floats(0, 1)
POSITIVE = st.floats(0, 1e9)
RECORDS = st.builds(
    Record,
    name=st.text(st.characters(exclude_categories=["Cs"])),
    provenance=st.just(WHERE),
    accuracy=st.none()
    | st.lists(FRACTIONS, min_size=1).map(lambda v: Accuracy(v, range(len(v)))),
    size=st.none() | st.just(report.size({"kernel": jnp.zeros((3, 4))})),
    latency=st.none()
    | st.builds(
        Latency,
        median_seconds=POSITIVE,
        p90_seconds=POSITIVE,
        runs=st.integers(1, 99),
        compile_seconds=st.none() | POSITIVE,
        device=st.text(st.characters(exclude_categories=["Cs"])),
    ),
    energy=st.just(Energy()) | st.builds(Energy, st.just("measured_counter"), POSITIVE),
    training_seconds=st.none() | POSITIVE,
    simulated=st.booleans(),
)


@given(record=RECORDS)
def test_json_gives_the_record_back(record):
    text = record.to_json()
    assert Record.from_json(text) == record
    assert Record.from_json(text).to_json() == text


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "3", '{"name": "x"}'])
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="not a jaxcompress record"):
        Record.from_json(text)


def test_unknown_fields_are_refused():
    fields = json.loads(Record(name="a", provenance=WHERE).to_json())
    with pytest.raises(ValueError, match="not a jaxcompress record.*carbon"):
        Record.from_json(json.dumps(fields | {"carbon": 1}))


def test_no_energy_without_a_method():
    for method, joules in [("unavailable", 1.0), ("measured_counter", None)]:
        with pytest.raises(ValueError, match="if and only if the energy was measured"):
            Energy(method, joules)
    with pytest.raises(ValueError, match="energy method must be .*, got 'guess'"):
        Energy("guess", 1.0)


def test_spread_is_the_sample_standard_deviation():
    values = [0.90, 0.92, 0.97]
    accuracy = Accuracy(values, [0, 1, 2])
    assert accuracy.mean == pytest.approx(sum(values) / 3)
    assert accuracy.spread == statistics.stdev(values)
    assert Accuracy([0.9], [0]).spread is None


def test_accuracies_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="got 2 values and 1 seeds"):
        Accuracy([0.9, 0.8], [0])
    for value in (88.1, float("nan")):
        with pytest.raises(ValueError, match="Divide percentages by 100"):
            Accuracy([value], [0])


def cells(text):
    return [[c.strip() for c in line.split(" | ")] for line in text.splitlines()]


@given(records=st.lists(RECORDS, min_size=1, max_size=4))
def test_tables_are_rectangular_and_repeatable(records):
    text = markdown(records)
    assert text == markdown([Record.from_json(r.to_json()) for r in records])
    lines = text.splitlines()
    assert len(lines) == 2 + len(records)
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_table_shows_what_is_known():
    w = normal(100, 100)
    size = report.size({"kernel": w})
    fast = Latency(
        median_seconds=0.002,
        p90_seconds=0.003,
        runs=9,
        compile_seconds=1.5,
        device="cpu: a|b",
    )
    dense = Record(
        name="dense",
        provenance=WHERE,
        accuracy=Accuracy([0.9, 0.92], [0, 1]),
        size=size,
        latency=fast,
        training_seconds=12.34,
    )
    masked = dataclasses.replace(
        dense, name="masked", size=None, latency=None, simulated=True
    )
    again = dataclasses.replace(fast, compile_seconds=None)
    again = dataclasses.replace(dense, name="again", latency=again)
    header, _, first, second, third = cells(markdown([dense, masked, again]))
    assert third[header.index("compile")] == "before"
    shown = dict(zip(header, first, strict=True))
    assert shown["accuracy"] == "91.00% ± 1.41 (2 seeds)"
    assert shown["params"] == "10,000"
    assert shown["file bytes"] == f"{size.file_bytes:,}"
    assert (shown["median"], shown["p90"]) == ("2.000 ms", "3.000 ms")
    assert shown["compile"] == "1.50 s"
    assert shown["device"] == "cpu: a\\|b"
    assert shown["training"] == "12.3 s"
    assert shown["energy"] == "unavailable"
    other = dict(zip(header, second, strict=True))
    assert other["file bytes"] == other["median"] == "–"
    assert "simulated, no speed-up expected" in second[-1]


def test_a_number_of_joules_stands_beside_its_method():
    measured = Record(
        name="a", provenance=WHERE, energy=Energy("measured_counter", 0.5)
    )
    text = markdown([measured, Record(name="b", provenance=WHERE)])
    header, _, first, second = cells(text)
    assert "energy (measured_counter) |" in header
    assert first[-1] == "0.5 J (measured_counter) |"
    assert second[-1] == "unavailable |"


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="no records"):
        markdown([])
