# SPDX-License-Identifier: Apache-2.0
import dataclasses
import statistics

import numpy as np
import pytest

from research import common


@dataclasses.dataclass(frozen=True)
class Record:
    method: str
    asked: float
    seed: int
    accuracy: float
    size: int | None = None


RECORDS = [
    Record("b", 0.5, 0, 0.50, 10),
    Record("b", 0.5, 1, 0.52, 20),
    Record("a", 0.5, 0, 0.25),
    Record("b", 0.9, 0, 0.75, 30),
]


def test_records_are_grouped_in_the_order_they_come_up():
    by_method = common.grouped(RECORDS, "method")
    assert list(by_method) == ["b", "a"] and len(by_method["b"]) == 3
    cells = common.grouped(RECORDS, "method", "asked")
    assert list(cells) == [("b", 0.5), ("a", 0.5), ("b", 0.9)]
    assert common.values(cells["b", 0.5]) == [0.50, 0.52]


def test_absent_values_do_not_count():
    assert common.values(RECORDS, "size") == [10, 20, 30]
    assert common.mean(RECORDS, "size") == 20
    assert common.mean(RECORDS[2:3], "size") is None


def test_one_value_has_no_spread():
    assert common.mean_and_spread([0.5]) == (0.5, None)
    mean, spread = common.mean_and_spread([0.5, 0.6])
    assert mean == pytest.approx(0.55) and spread == statistics.stdev([0.5, 0.6])
    assert common.text_of([0.5]) == "50.00"
    assert common.text_of([0.50, 0.52]) == "51.00 ± 1.41"
    assert common.percent([]) == ""


def test_a_summary_has_rows_and_all_records():
    summary = common.summary(RECORDS, ("method", "asked"), ("size",))
    row = summary["rows"][0]
    assert row.pop("accuracy") == pytest.approx(0.51)
    assert row.pop("spread") == statistics.stdev([0.5, 0.52])
    assert row == {"method": "b", "asked": 0.5, "size": 15}
    assert summary["rows"][1]["size"] is None and summary["rows"][1]["spread"] is None
    assert [Record(**fields) for fields in summary["records"]] == RECORDS


def test_a_table_as_markdown():
    table = common.markdown(["*x*", "a"], [["b", "1"], ["c", ""]])
    assert table == "| *x* | a |\n|---|---|\n| b | 1 |\n| c |  |"


def test_lines_of_accuracies_leave_out_what_was_not_run():
    cells = common.grouped(RECORDS, "method", "asked")
    assert common.accuracy_lines(cells, [0.5, 0.9]) == [
        ["b", "51.00 ± 1.41", "75.00"],
        ["a", "25.00", ""],
    ]


def test_a_picture_is_written_and_closed(tmp_path):
    import matplotlib.pyplot as plt

    curves = {"a": common.Curve({0.5: [0.8, 0.9], 0.9: [0.7, 0.7], 0.91: [0.7]})}
    common.by_sparsity({"panel": curves}, [0.9, 0.92], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert plt.get_fignums() == []


def test_error_bars_are_means_and_spreads():
    class Axis:
        def errorbar(self, x, y, **options):
            self.drawn = x, y, options

    axis = Axis()
    common.error_bars(axis, {1: [0.5], 2: [0.4, 0.6]}, "a", fmt="x:")
    x, y, options = axis.drawn
    assert x == [1, 2] and y == [50, 50] and options["fmt"] == "x:"
    np.testing.assert_allclose(options["yerr"], [0, 100 * statistics.stdev([0.4, 0.6])])
