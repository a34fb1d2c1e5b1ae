# SPDX-License-Identifier: Apache-2.0
import dataclasses

import pytest
from hypothesis import given, strategies as st
from recorded import RECORDS, accurate, measured, timed

from jaxcompress import report
from jaxcompress.report import Energy, Record, markdown


def rows(text):
    """The cells of each row, by the title of their column."""
    head, _, *lines = [
        [cell.strip() for cell in line[1:-1].split(" | ")] for line in text.splitlines()
    ]
    return [dict(zip(head, line, strict=True)) for line in lines]


@given(records=st.lists(RECORDS, min_size=1, max_size=4))
def test_tables_are_rectangular_and_repeatable(records):
    text = markdown(records)
    assert text == markdown([Record.from_json(r.to_json()) for r in records])
    lines = text.splitlines()
    assert len(lines) == 2 + len(records)
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_table_shows_what_is_known():
    size, counted = measured()
    dense = accurate(
        "dense",
        [0.9, 0.92],
        size=size,
        count=counted,
        batch=2,
        latency=timed(0.002, dtype="float32"),
        energy_model=report.energy_model(counted),
        training_seconds=12.34,
    )
    masked = dataclasses.replace(
        dense, name="a|b", size=None, latency=None, simulated=True
    )
    before = timed(0.002, compilation="compiled before", compile_seconds=None)
    first, second, third = rows(
        markdown([dense, masked, dataclasses.replace(dense, latency=before)])
    )
    assert first["accuracy (test, 2 seeds)"] == "91.00 ± 1.41 %"
    assert first["params"] == "2,080"
    assert first["file bytes"] == f"{size.file_bytes:,}"
    assert first["MACs (batch 2)"] == f"{2 * 64 * 32:,}"
    here = "(JAX, cpu: cpu, batch 2)"
    assert first[f"median {here}"] == "2.000 ms"
    assert first[f"p90 {here}"] == "4.000 ms"
    assert first[f"compile {here}"] == "1.50 s"
    assert third[f"compile {here}"] == "compiled before"
    assert first["computes in"] == "float32"
    assert first["training"] == "12.3 s"
    assert first["energy"] == "unavailable"
    assert first["energy, full gain (operation model)"].endswith("J")
    assert second["model"] == "a\\|b"
    assert second["file bytes"] == second[f"median {here}"] == "–"
    assert second["note"] == "simulated, no speed-up expected"


def test_what_cannot_be_compared_has_columns_of_its_own():
    here = accurate("a", [0.5], latency=timed(0.1))
    metric = report.accuracy([0.6], [0], split="validation")
    there = accurate("b", [], metrics=[metric], latency=timed(0.2, device="gpu: x"))
    first, second = rows(markdown([here, there]))
    assert first["accuracy (test, 1 seed)"] == "50.00 %"
    assert second["accuracy (validation, 1 seed)"] == "60.00 %"
    assert second["accuracy (test, 1 seed)"] == "–"
    assert first["median (JAX, gpu: x)"] == second["median (JAX, cpu: cpu)"] == "–"
    eight = dataclasses.replace(here, batch=8)
    assert rows(markdown([here, eight]))[1]["median (JAX, cpu: cpu)"] == "–"


def test_a_number_of_joules_stands_under_its_method():
    counted = Energy(
        method="counter",
        source="NVML, GPU 0",
        joules=0.5,
        spread=0.01,
        windows=4,
        window_seconds=10.0,
        idle_watts=70.0,
    )
    other = dataclasses.replace(counted, source="RAPL")
    records = [accurate("a", [0.5], energy=e) for e in (counted, other, Energy())]
    first, second, third = rows(markdown(records))
    assert first["energy (counter: NVML, GPU 0)"] == "500 mJ ± 10 mJ"
    assert second["energy (counter: NVML, GPU 0)"] == "–"
    assert third["energy (counter: RAPL)"] == "unavailable"


def test_numbers_of_seeds_stand_beside_the_values_they_differ_in():
    records = [accurate("a", [0.5]), accurate("b", [0.5, 0.7])]
    first, second = (row["accuracy (test)"] for row in rows(markdown(records)))
    assert (first, second) == ("50.00 % (1 seed)", "60.00 ± 14.14 % (2 seeds)")


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="records must not be empty"):
        markdown([])
