# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies as st
from recorded import RECORDS, WHERE, accurate, measured, timed

from jaxcompress import report
from jaxcompress.report import Record


@given(record=RECORDS)
def test_json_gives_the_record_back(record):
    text = record.to_json()
    assert Record.from_json(text) == record
    assert Record.from_json(text).to_json() == text


def test_equal_records_give_equal_text():
    one = accurate("a", [0.5, 1.0], training_seconds=2.0)
    values, seeds = [np.float32(0.5), 1], np.arange(2).tolist()
    metric = report.accuracy(values, seeds, split="test")
    same = Record(
        name="a", provenance=WHERE, metrics=(metric,), training_seconds=np.float64(2)
    )
    assert one == same and one.to_json() == same.to_json()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", "3", '{"name": "x"}', "[" * 100_000]
)
def test_other_json_is_refused(text):
    with pytest.raises(ValueError, match="not a jaxcompress record"):
        Record.from_json(text)


def signed(fields, **changes):
    """A document whose checksum is right."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    known = {"format": "jaxcompress record", "version": 1, "record": fields}
    return json.dumps(known | {"crc32": zlib.crc32(text.encode())} | changes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"carbon": 1}, "record has the unknown 'carbon'"),
        ({"name": 3}, "record.name must be of type str, got 3"),
        ({"batch": 1.5}, "record.batch must be of type int, got 1.5"),
        ({"simulated": 1}, "record.simulated must be of type bool, got 1"),
        ({"metrics": [{}]}, r"record.metrics\[0\] misses 'higher_is_better', 'name'"),
        ({"metrics": {}}, "record.metrics must be a list"),
        ({"size": []}, "record.size must be an object"),
        ({"training_seconds": 10**400}, "record.training_seconds must be finite"),
    ],
)
def test_fields_of_another_kind_are_named(change, message):
    fields = json.loads(accurate("a", [0.5]).to_json())["record"]
    assert Record.from_json(signed(fields)) == accurate("a", [0.5])
    with pytest.raises(ValueError, match=message):
        Record.from_json(signed(fields | change))
    fields.pop("name")
    with pytest.raises(ValueError, match="record misses 'name'"):
        Record.from_json(signed(fields))


def test_other_versions_are_refused():
    fields = json.loads(accurate("a", [0.5]).to_json())["record"]
    with pytest.raises(ValueError, match=r"version is 2 \(known: 1\)"):
        Record.from_json(signed(fields, version=2))


def test_damage_is_noticed():
    text = accurate("a", [0.5], size=measured()[0]).to_json()
    digits = [i for i, x in enumerate(text) if x in "3456"]
    for i in digits[:: len(digits) // 20]:
        with pytest.raises(ValueError, match="checksum is wrong|version is"):
            Record.from_json(text[:i] + "7" + text[i + 1 :])
    with pytest.raises(ValueError, match="cut off"):
        Record.from_json(text[:-9])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    record = accurate("a", [0.5], training_seconds=value)
    with pytest.raises(ValueError, match="record.training_seconds must be finite"):
        record.to_json()
    text = accurate("a", [0.5], training_seconds=2.0).to_json()
    assert "2.0" in text
    with pytest.raises(ValueError, match="not finite"):
        Record.from_json(text.replace("2.0", json.dumps(value)))


def test_a_metric_of_a_record_is_found_by_name_and_split():
    train = report.accuracy([0.9], [0], split="train")
    test = report.accuracy([0.8], [0], split="test")
    record = accurate("a", [], metrics=[train, test])
    assert record.metric("accuracy", "test") == test
    for name, split in [("accuracy", None), ("loss", None), ("accuracy", "other")]:
        with pytest.raises(
            KeyError, match=r"its metrics: accuracy \(train\), accuracy"
        ):
            record.metric(name, split)
    with pytest.raises(ValueError, match="one metric of each name and split"):
        accurate("a", [], metrics=[test, test])


@given(records=st.lists(RECORDS, min_size=1, max_size=3))
def test_files_hold_one_record_or_more(records, tmp_path_factory):
    path = tmp_path_factory.mktemp("records") / "a.json"
    report.save_records(path, *records)
    assert report.load_records(path) == tuple(records)


def test_files_that_hold_none_are_named(tmp_path):
    path = tmp_path / "a.json"
    for text in ("", "[]", "{}", "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(ValueError, match="a.json' cannot be read"):
            report.load_records(path)
    with pytest.raises(ValueError, match="records must not be empty"):
        report.save_records(path)


def test_a_record_prints_as_a_list():
    size, counted = measured()
    record = accurate("net", [0.5], size=size, count=counted, latency=timed(0.002))
    lines = str(record).splitlines()
    assert lines[0] == "net" and max(map(len, lines)) <= 120
    text = str(record)
    for part in ("test: 50.00 %", f"{size.file_bytes:,} bytes", "median 2.000 ms"):
        assert part in text
    assert "unavailable (not measured)" in text and "memory" not in text


def test_records_do_not_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        accurate("a", [0.5]).name = "b"  # pyright: ignore[reportAttributeAccessIssue]
    assert timed(1.0).compile_text == "1.50 s"
