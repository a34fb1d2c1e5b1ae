# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

import research.temperature
from research import common
from research.data import load
from research.stages import Record, summary
from research.temperature.__main__ import main
from research.temperature._choose import choose
from research.temperature._config import config_of
from research.temperature._rows import of_temperatures, of_weights
from research.temperature._tables import markdown

pytestmark = pytest.mark.slow

FOLDER = Path(research.temperature.__file__).parent


def read(folder):
    content = json.loads((folder / "results.json").read_text())
    return content, [Record(**record) for record in content["records"]]


def keys(networks):
    return {(n.part, n.method, n.bits, n.taught) for n in networks}


def test_every_row_is_there_and_drawn(tmp_path):
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    config = config_of("digits", seeds=None, quick=True)
    rows = [*of_temperatures(config), *of_weights(config)]
    assert keys(read(tmp_path)[1]) == keys(rows)
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_weights_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation"
    search = common.Search()
    config = config_of("fashion_mnist", seeds=None, quick=False)
    choose(config, load("digits"), search)
    assert search.trials == sum(len(t["accuracy"]) for t in made["weights"].values())


def test_the_readme_says_what_the_results_say():
    content, records = read(FOLDER)
    assert content["rows"] == summary(records)["rows"]
    config = config_of("fashion_mnist", seeds=None, quick=False)
    assert keys(records) == keys([*of_temperatures(config), *of_weights(config)])
    assert {r.seed for r in records} == {0, 1, 2}
    readme = (FOLDER / "README.md").read_text()
    assert [t for t in markdown(records).split("\n\n") if t not in readme] == []


def test_what_both_studies_have_is_one_network():
    other = read(FOLDER.parent / "joint_compression")[1]
    made = {(r.method, r.bits, r.taught, r.weight, r.seed): r.accuracy for r in other}
    same = [r for r in read(FOLDER)[1] if r.taught == "labels"]
    assert len(same) == 12
    for r in same:
        assert r.accuracy == made[r.method, r.bits, r.taught, r.weight, r.seed]
