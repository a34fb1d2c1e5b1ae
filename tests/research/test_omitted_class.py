# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest

import research.omitted_class
from research.data import Split
from research.omitted_class.__main__ import main, raised, rates
from research.omitted_class._tables import Record, markdown

pytestmark = pytest.mark.slow

FOLDER = Path(research.omitted_class.__file__).parent


def read(folder):
    content = json.loads((folder / "results.json").read_text())
    return content, [Record(**record) for record in content["records"]]


def test_every_row_is_there_and_drawn(tmp_path):
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    _, records = read(tmp_path)
    assert {(r.temperature, r.saw) for r in records} == {
        (None, False), (None, True), (4.0, False), (4.0, True),
    }  # fmt: skip
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_the_bias_is_the_smallest_of_the_best():
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
    split = Split(np.zeros(3), np.array([1, 1, 0], np.int32))
    assert rates(logits, split, 1, 0.0) == (0.0, pytest.approx(1 / 3))
    bias = raised(logits, split, 1)
    assert bias == 1.25 and rates(logits, split, 1, bias) == (1.0, 1.0)


def test_the_readme_says_what_the_results_say():
    content, records = read(FOLDER)
    assert {r.seed for r in records} == {0, 1, 2}
    assert markdown(records, content["classes"]) in (FOLDER / "README.md").read_text()
