# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcompress as jc
import research.bit_widths
from research.bit_widths.__main__ import main
from research.bit_widths._config import config_of, rates
from research.bit_widths._rows import QWIX, rows
from research.bit_widths._tables import Record, markdown, summary
from research.bit_widths._train import ConvNet, Runs
from research.data import load

pytest.importorskip("qwix")
pytestmark = [
    pytest.mark.slow,
    # qwix asks Flax for what it has renamed.
    pytest.mark.filterwarnings("ignore:.*VariableState:DeprecationWarning"),
]

FOLDER = Path(research.bit_widths.__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(["--quick", "--out", str(out)]) == 0
    return out


def records(folder):
    content = json.loads((folder / "results.json").read_text())
    return [Record(**record) for record in content["records"]]


def keys(networks):
    return [(n.method, n.bits, n.start) for n in networks]


def test_every_row_is_there_and_drawn(finished):
    assert keys(records(finished)) == keys(rows(quick=True))
    assert (finished / "results.png").stat().st_size > 10_000


def test_only_what_qwix_quantizes_has_no_file(finished):
    made = records(finished)
    assert all((r.file_bytes is None) == (r.method == QWIX) for r in made)
    size = {(r.method, r.bits): r.file_bytes or 0 for r in made}
    assert size["nearest", "2"] < size["float", "32"] / 2  # the header is most of it


def test_what_ships_is_on_the_grid():
    config, data = config_of("digits", seeds=None, quick=True), load("digits")
    runs = Runs(config, ConvNet(10, config.widths), data.train)
    params = runs.float_network(0)
    for row in rows(quick=True):
        if row.start == "after" and row.compressor is not None and row.bits != "32":
            kernel = runs.of_row(row, 0).params["Conv_0"]["kernel"]
            assert isinstance(kernel, jc.QArray) and kernel.bits == int(row.bits)
            assert kernel.scale.shape == (1, 1, 1, 8)
            assert set(np.unique(np.asarray(kernel.codes)).tolist()) <= {-1, 0, 1}
            assert jax.tree.leaves(params["Dense_0"]["bias"])


def test_settings_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation"
    trained = {row.setting for row in rows(quick=False) if row.start == "float"}
    assert trained == set(rates())


def test_the_readme_says_what_the_results_say():
    made = records(FOLDER)
    content = json.loads((FOLDER / "results.json").read_text())
    assert content["rows"] == summary(made)["rows"]
    assert set(keys(made)) == set(keys(rows(quick=False)))
    assert {r.seed for r in made} == {0, 1, 2}
    sizes = {r.bits: r.file_bytes or 0 for r in made if r.method == "nearest"}
    ascending = [sizes[bits] for bits in ("2", "3", "4", "8", "bf16")]
    assert ascending == sorted(ascending)
    readme = (FOLDER / "README.md").read_text()
    assert [t for t in markdown(made).split("\n\n") if t not in readme] == []
