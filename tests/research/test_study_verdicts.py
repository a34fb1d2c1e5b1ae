# SPDX-License-Identifier: Apache-2.0
"""READMEs say which trivial ways the studies do not beat."""

import importlib
import json
from pathlib import Path

import pytest

import research
from jaxcompress import report
from research import common

ROOT = Path(research.__file__).parent
STORED = [
    ("bit_widths", "results.json"),
    ("bit_widths", "digits.json"),
    ("distillation", "results.json"),
    ("distillation_schemes", "results.json"),
    ("joint_compression", "results.json"),
    ("lottery_tickets", "results.json"),
    ("lottery_tickets", "fashion_mnist.json"),
    ("omitted_class", "results.json"),
    ("on_policy", "results.json"),
    ("one_shot", "results.json"),
    ("one_shot", "fashion_mnist.json"),
    ("sparse_training", "results.json"),
    ("sparse_training", "fashion_mnist.json"),
    ("structured_pruning", "results.json"),
    ("structured_pruning", "fashion_mnist.json"),
    ("temperature", "results.json"),
]


@pytest.mark.parametrize(("study", "file"), STORED)
def test_the_readme_has_the_verdicts_of_the_stored_results(study, file):
    tables = importlib.import_module(f"research.{study}._tables")
    stored = json.loads((ROOT / study / file).read_text())["records"]
    records = [tables.Record(**record) for record in stored]
    assert (
        common.verdicts(tables.claims(records))
        in (ROOT / study / "README.md").read_text()
    ), "run the study with --resume, and copy what it prints"


def test_the_readme_of_deep_compression_has_its_verdicts():
    tables = importlib.import_module("research.deep_compression._tables")
    folder = ROOT / "deep_compression"
    stored = json.loads((folder / "results.json").read_text())["records"]
    records = [
        report.Record.from_json(json.dumps(record))
        for group in stored.values()
        for record in group
    ]
    text = common.verdicts(tables.claims(records))
    assert text in (folder / "README.md").read_text()


def test_a_trial_with_other_sparsities_has_verdicts_too():
    tables = importlib.import_module("research.one_shot._tables")
    stored = json.loads((ROOT / "one_shot" / "results.json").read_text())["records"]
    few = [tables.Record(**r) for r in stored if r["asked"] in (0.0, 0.5, 0.9)]
    assert all(list(c.cases) == ["at 50 %"] for c in tables.claims(few))
