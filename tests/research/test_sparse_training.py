# SPDX-License-Identifier: Apache-2.0
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcompress as jc
from research import common
from research.common import _session
from research.data import load
from research.sparse_training import __main__ as study
from research.sparse_training._config import DEFAULTS, Config, config_of
from research.sparse_training._rows import METHODS, either
from research.sparse_training._tables import DENSE, ONCE
from research.sparse_training._train import Runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One trial; its trained networks are kept as well."""
    out = tmp_path_factory.mktemp("study") / "out"
    networks, runs = [], Runs._run

    def kept(self, name, *rest):
        trained = runs(self, name, *rest)
        networks.append((name, *jax.tree.map(np.asarray, trained)))
        return trained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Runs, "_run", kept)
        assert study.main(["--quick", "--out", str(out)]) == 0
    return out, networks


def results(finished):
    return json.loads((finished[0] / "results.json").read_text())


def test_every_row_is_there_and_drawn(finished):
    summary = results(finished)
    sparsities = config_of("digits", seeds=None, quick=True).sparsities
    cells = {(r["method"], r["budget"], r["asked"]) for r in summary["rows"]}
    methods = {
        (m, b, s)
        for m in (*METHODS, ONCE)
        for b in ("ERK", "uniform")
        for s in sparsities
    }
    controls = {(c, "", s) for c in common.CONTROLS for s in sparsities}
    assert cells == methods | controls | {(DENSE, "", 0.0)}
    assert (finished[0] / "results.png").stat().st_size > 10_000


def test_sparsities_are_those_asked_for(finished):
    for row in results(finished)["records"]:
        # The counts of the two leaves, of 2,220 weights, are rounded.
        asked = row["asked"] if row["method"] in (*METHODS, ONCE) else 0.0
        assert abs(row["sparsity"] - asked) <= 1 / 2220, row
        assert row["zeros"] >= row["sparsity"]
        if row["method"] in ("static", "gradual pruning", DENSE, ONCE):
            assert row["zeros"] == pytest.approx(row["sparsity"])


def test_masks_are_as_sparse_as_the_file_says(finished):
    said = [r for r in results(finished)["records"] if r["method"] in METHODS]
    made = [rest for name, *rest in finished[1] if name in METHODS]
    assert len(said) == len(made)
    for record, (params, masks) in zip(said, made, strict=True):
        kernels = [params[f"Dense_{i}"]["kernel"] for i in range(2)]
        kept = [masks[f"Dense_{i}"]["kernel"] for i in range(2)]
        assert all((k[~m] == 0).all() for k, m in zip(kernels, kept, strict=True))
        zeros = sum(np.count_nonzero(~m) for m in kept)
        assert zeros / sum(m.size for m in kept) == pytest.approx(record["sparsity"])
        each = [1 - m.mean() for m in kept]
        uniform = np.allclose(each, record["asked"], atol=1 / 300)
        assert uniform == (record["budget"] == "uniform")
        if not uniform:  # ERK keeps more of the small last layer
            assert each[1] < each[0]


def test_the_control_has_no_more_bytes_than_the_largest_file(finished):
    rows = results(finished)["records"]
    controls = [p for name, p, _ in finished[1] if name == "dense"][1:]
    for params in controls:
        floats = 4 * sum(p.size for p in jax.tree.leaves(params))
        assert any(floats <= r["file_bytes"] for r in rows if r["method"] in METHODS)


def test_a_choice_is_made_without_the_test_set(tmp_path, monkeypatch):
    data = load("digits")
    poisoned = dataclasses.replace(data, test=None)  # whoever looks at it fails
    monkeypatch.setattr(_session, "load", lambda *args, **options: poisoned)
    monkeypatch.setattr(study, "RATES", (1e-3,))
    monkeypatch.setattr(study, "DROPS", (0.3,))
    monkeypatch.setattr(study, "METHODS", {})
    monkeypatch.setattr(study, "DYNAMIC", ("SET",))
    assert study.main(["--quick", "--choose", "--out", str(tmp_path)]) == 0
    made = json.loads((tmp_path / "choices.json").read_text())
    assert made["split"] == "validation" and made["examples"] == len(data.validation)
    assert made["rate"]["chosen"] == 1e-3


def test_the_committed_settings_are_those_that_were_chosen():
    file = common.__file__.replace("common/__init__.py", "sparse_training/choices.json")
    with open(file) as opened:
        made = json.load(opened)
    config = Config(data="digits", **DEFAULTS["digits"])
    assert made["rate"]["chosen"] == config.rate
    for name, exchange in (("RigL", config.rigl), ("SET", config.set)):
        chosen = made["exchange"][name]["chosen"]
        assert (chosen["drop"], chosen["every"]) == (exchange.drop, exchange.every)


@pytest.mark.parametrize("erk", [True, False])
def test_the_traced_budget_is_one_of_the_two(erk):
    scores = {"a": jnp.ones((64, 30)), "b": jnp.ones((30, 10))}
    expected = (jc.prune.budgets.erk if erk else jc.prune.budgets.uniform)(
        scores, jnp.float32(0.9)
    )
    made = jax.jit(lambda e: either(e)(scores, jnp.float32(0.9)))(erk)
    assert jax.tree.map(int, made) == jax.tree.map(int, expected)
