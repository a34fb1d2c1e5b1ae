# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from research import common
from research.data import load
from research.one_shot.__main__ import main, methods, open_methods
from research.one_shot._config import CHOSEN, config_of
from research.one_shot._rows import GREEDY, METHODS
from research.one_shot._tables import DENSE, Record

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(["--quick", "--out", str(out)]) == 0
    return out


def records(out):
    return json.loads((out / "results.json").read_text())["records"]


def test_every_row_is_there_and_drawn(finished):
    cells = {(r["method"], r["asked"]) for r in records(finished)}
    pruned = {(name, s) for name in (*METHODS, *common.CONTROLS) for s in (0.5, 0.9)}
    assert cells == pruned | {(DENSE, 0.0)}
    assert (finished / "results.png").stat().st_size > 10_000


def test_sparsities_are_what_was_asked_for(finished):
    for row in records(finished):
        dense = row["method"] in (DENSE, *common.CONTROLS)
        # Wanda rounds in every output.
        slack = 0.02 if row["method"] == "Wanda" else 1e-3
        assert abs(row["sparsity"] - (0 if dense else row["asked"])) < slack, row


def test_the_control_has_no_more_bytes_than_the_largest_file(finished):
    rows = [Record(**row) for row in records(finished)]
    config, data = config_of("digits", seeds=None, quick=True), load("digits")
    for sparsity in config.sparsities:
        most = common.largest_file(rows, sparsity, common.CONTROLS)
        assert most == max(
            r.file_bytes for r in rows if r.asked == sparsity and r.method in METHODS
        )
        (hidden,) = common.no_larger(most, data, config.widths).widths
        assert 4 * ((64 + 1) * hidden + (hidden + 1) * 10) <= most


def test_settings_are_chosen_without_the_test_set():
    assert set(CHOSEN) == set(open_methods())
    for name, setting in CHOSEN.items():
        assert setting in METHODS[name].candidates


def test_wide_layers_are_not_operated_on_weight_by_weight():
    assert GREEDY not in methods(config_of("fashion_mnist", seeds=1, quick=False))
    assert config_of("digits", seeds=5, quick=False).seeds == 5
