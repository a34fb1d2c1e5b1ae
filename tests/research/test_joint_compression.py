# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import jax.numpy as jnp
import pytest

import jaxcompress as jc
import research.joint_compression
from research import common
from research.data import load
from research.joint_compression.__main__ import jobs, main
from research.joint_compression._choose import choose
from research.joint_compression._config import config_of
from research.joint_compression._rows import of_afterwards, of_methods
from research.joint_compression._tables import markdown, pairs
from research.stages import (
    FLOAT,
    JOINTLY,
    LABELS,
    METHODS,
    NARROW,
    PRUNE,
    QUANTIZE,
    SMALL,
    Record,
    Row,
    Teaching,
    counted,
    summary,
)

pytestmark = pytest.mark.slow

FOLDER = Path(research.joint_compression.__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(["--quick", "--out", str(out)]) == 0
    return out


def records(folder):
    content = json.loads((folder / "results.json").read_text())
    return [Record(**record) for record in content["records"]]


def rows(config):
    return [*of_methods(config), *of_afterwards(config)]


def keys(networks):
    return {(n.part, n.method, n.bits, n.taught) for n in networks}


def test_every_row_is_there_and_drawn(finished):
    config, made = config_of("digits", seeds=None, quick=True), records(finished)
    assert keys(rows(config)) <= keys(made)
    assert len(made) == len(list(jobs(config, load("digits"), [])))
    assert (finished / "results.png").stat().st_size > 10_000


def test_what_is_done_jointly_is_in_the_file(finished):
    size = {m: pair[0] for (m, _), pair in pairs(records(finished)).items()}
    joint, pruned, coded = (size[m][0] for m in (JOINTLY, PRUNE, QUANTIZE))
    assert joint.levels == 3 and pruned.levels is None
    assert min(joint.sparsity, pruned.sparsity) > 0.899
    assert joint.file_bytes < min(pruned.file_bytes, coded.file_bytes)
    assert size[NARROW][0].weights > size[SMALL][0].weights


def test_a_network_that_is_not_what_was_asked_for_is_refused():
    config = config_of("digits", seeds=None, quick=True)
    params = {"kernel": jnp.linspace(-1, 1, 400).reshape(40, 10)}

    def check(method, bits, compressor):
        shipped = jc.compress(compressor, params)
        return counted(config, Row("methods", method, bits, LABELS), shipped)

    four = jc.weight_quantization(bits=4)
    with pytest.raises(common.RunError, match="0.5000 of the weights are zero"):
        check(PRUNE, None, jc.magnitude_pruning(0.5))
    with pytest.raises(common.RunError, match="15 levels"):
        check(QUANTIZE, 2, four)
    with pytest.raises(common.RunError, match="not every weight is a code"):
        check(QUANTIZE, 4, jc.identity())
    made = check(JOINTLY, 4, jc.chain(jc.magnitude_pruning(0.9), four))
    assert (made.levels or 99) <= 15 and made.sparsity >= 0.9


def test_stages_share_the_steps():
    assert {sum(s.sixths for s in stages) for stages in METHODS.values()} == {6}


def test_teachers_have_names():
    made = (
        LABELS,
        Teaching(0.9, 4, 4),
        Teaching(0.9, 16, 1),
        Teaching(1, squared=True),
    )
    assert [t.name for t in made] == ["labels", "T=4", "16 to 1", "logits"]


def test_settings_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation"
    config = config_of("fashion_mnist", seeds=None, quick=False)
    parts = (made[part].values() for part in ("settings", "teaching"))
    tried = [len(trial["accuracy"]) for part in parts for trial in part]
    search = common.Search()
    choose(config, load("digits"), search)
    assert search.trials == sum(tried)


def test_the_readme_says_what_the_results_say():
    made = records(FOLDER)
    content = json.loads((FOLDER / "results.json").read_text())
    assert content["rows"] == summary(made)["rows"]
    config = config_of("fashion_mnist", seeds=None, quick=False)
    small = {k for k in keys(made) if k[1] in (FLOAT, SMALL, NARROW, common.SMALL_MACS)}
    assert keys(made) - small <= keys(rows(config))
    assert {r.seed for r in made} == {0, 1, 2}
    readme = (FOLDER / "README.md").read_text()
    assert [t for t in markdown(made).split("\n\n") if t not in readme] == []
