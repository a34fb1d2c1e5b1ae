# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import research.distillation
from jaxcompress import distill
from research.distillation.__main__ import main
from research.distillation._rows import rows
from research.distillation._tables import markdown
from research.students import (
    TEACHER,
    TEACHERS,
    Answers,
    Asked,
    Record,
    Remembered,
    chosen,
    grouped,
    summary,
)

pytestmark = pytest.mark.slow

FOLDER = Path(research.distillation.__file__).parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(["--quick", "--out", str(out)]) == 0
    return out


def read(folder):
    content = json.loads((folder / "results.json").read_text())
    return content, [Record(**record) for record in content["records"]]


def test_every_row_is_there_and_drawn(finished):
    names = {r.name for r in rows(quick=True)}
    assert set(grouped(read(finished)[1])) == names | {TEACHER, TEACHERS}
    assert (finished / "results.png").stat().st_size > 10_000


@pytest.mark.parametrize("row", rows(quick=False), ids=lambda row: row.name)
def test_every_loss_is_a_mean(row):
    if row.loss is None:
        return
    shapes = {"logits": (4, 10), "maps": (4, 2, 2, 3), "pooled": (4, 3)}
    answers = Answers(**{name: jnp.ones(shape) for name, shape in shapes.items()})
    asked = Asked(answers, answers, jnp.zeros(4, int), jnp.ones(()), jnp.eye(3))
    if row.memory:
        bank = distill.memory(jax.random.key(0), 9, 3)
        memory = Remembered(bank, jnp.arange(4), jax.random.key(1), jnp.eye(3))
        mean, seen = jax.eval_shape(row.loss, asked._replace(memory=memory))
        assert jax.tree.map(jnp.shape, seen) == jax.tree.map(jnp.shape, bank)
    else:
        mean = jax.eval_shape(row.loss, asked)
    assert mean.shape == ()


def test_settings_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation"
    for row in made["rows"].values():
        best = max(row["tried"], key=lambda tried: tried["accuracy"])
        assert row["chosen"].items() <= best.items()
    assert {row.of for row in rows(quick=False)} <= set(chosen())


def test_the_readme_says_what_the_results_say():
    content, records = read(FOLDER)
    assert content["rows"] == summary(records)["rows"]
    assert {row.name for row in rows(quick=False)} <= set(grouped(records))
    assert {r.seed for r in records} == {0, 1, 2}
    readme = (FOLDER / "README.md").read_text()
    assert [t for t in markdown(records).split("\n\n") if t not in readme] == []
