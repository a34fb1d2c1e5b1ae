# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from draws import normal

import research.distillation
from research.data import Split
from research.distillation import _losses
from research.distillation.__main__ import main, raised, rates
from research.distillation._config import chosen
from research.distillation._images import inventor, subset, views_of
from research.distillation._network import Answers, ByPatches
from research.distillation._rows import rows
from research.distillation._tables import (
    Record,
    Without,
    gain,
    grouped,
    markdown,
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
    records = [Record(**record) for record in content["records"]]
    return content, records, [Without(**record) for record in content["without"]]


def test_every_row_is_there_and_drawn(finished):
    _, records, without = read(finished)
    names = {r.name for r in rows(quick=True)}
    schemes = {"born again, 1", "assistant", "kl, by the assistant"}
    teachers = {"teacher", "teachers together"}
    assert set(grouped(records)) == names | schemes | teachers
    assert {(r.temperature, r.saw) for r in without} == {
        (None, False), (None, True), (4.0, False), (4.0, True),
    }  # fmt: skip
    assert (finished / "results.png").stat().st_size > 10_000


@pytest.mark.parametrize(("size", "stride", "side"), [(5, 3, 8), (3, 2, 3)])
def test_patches_are_a_convolution(size, stride, side):
    x = jnp.asarray(np.random.RandomState(0).normal(size=(2, side, side, 3)), "float32")
    ours = ByPatches(4, size, stride)
    params: Any = ours.init(jax.random.key(0), x)["params"]
    kernel = params["Dense_0"]["kernel"].reshape(size, size, 3, 4)
    conv = nn.Conv(4, (size, size), strides=(stride, stride), use_bias=False)
    theirs: Any = conv.apply({"params": {"kernel": kernel}}, x)
    made: Any = ours.apply({"params": params}, x)
    np.testing.assert_allclose(made, theirs, atol=1e-5)


@pytest.mark.parametrize("row", rows(quick=False), ids=lambda row: row.name)
def test_every_loss_is_a_mean(row):
    if row.loss is None:
        return
    shapes = {"logits": (4, 10), "maps": (4, 2, 2, 3), "pooled": (4, 3)}
    answers = Answers(**{name: jnp.ones(shape) for name, shape in shapes.items()})
    asked = _losses.Asked(answers, answers, jnp.zeros(4, int), jnp.ones(()), jnp.eye(3))
    assert jax.eval_shape(row.loss, asked).shape == ()


def test_a_share_has_all_classes_alike():
    y = np.repeat(np.arange(3, dtype=np.int32), 20)
    rows = subset(Split(np.zeros(60), y), 0.1, seed=0)
    assert np.bincount(y[rows]).tolist() == [2, 2, 2]
    assert subset(Split(np.zeros(60), y), 0.1, seed=1).tolist() != rows.tolist()


@pytest.mark.parametrize("kind", ["shifted", "mixed", "smooth noise"])
def test_views_have_the_labels_of_their_images(kind):
    y = np.eye(2, dtype=np.float32)
    x = np.ones((2, 8, 8, 1), np.float32) * y[:, 1].reshape(2, 1, 1, 1)
    views, labels = views_of(kind, x, y, number=5, seed=0)
    assert views.shape == (10, 8, 8, 1) and views.min() >= 0 and views.max() <= 1
    if kind == "smooth noise":
        assert not labels.any()
    else:  # white is class 1, a blend is gray
        np.testing.assert_allclose(views[:, 4, 4, 0], labels[:, 1], atol=1e-6)
        np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-6)


def test_the_bias_is_the_smallest_of_the_best():
    logits = np.array([[1.0, 0.0], [1.0, 0.0], [9.0, 0.0]])
    split = Split(np.zeros(3), np.array([1, 1, 0], np.int32))
    assert rates(logits, split, 1, 0.0) == (0.0, pytest.approx(1 / 3))
    bias = raised(logits, split, 1)
    assert bias == 1.25 and rates(logits, split, 1, bias) == (1.0, 1.0)


def test_settings_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation"
    for row in made["rows"].values():
        best = max(row["tried"], key=lambda tried: tried["accuracy"])
        assert row["chosen"].items() <= best.items()
    assert {row.of for row in rows(quick=False)} <= set(chosen())


def test_gains_are_paired_by_seed():
    def records(name, accuracies):
        return [
            Record(part="logits", name=name, seed=i, accuracy=a)
            for i, a in enumerate(accuracies)
        ]

    made = records("student alone", [0.5, 0.7]) + records("kl", [0.6, 0.8])
    groups = grouped(made)
    assert gain(groups["kl"], groups) == pytest.approx((0.1, 0.0))


def test_the_readme_says_what_the_results_say():
    content, records, without = read(FOLDER)
    assert content["rows"] == summary(records, without)["rows"]
    assert {row.name for row in rows(quick=False)} <= set(grouped(records))
    assert {r.seed for r in records} == {r.seed for r in without} == {0, 1, 2}
    readme = (FOLDER / "README.md").read_text()
    tables = markdown(records, without, content["classes"]).split("\n\n")
    assert [t for t in tables if t not in readme] == []


def test_a_teacher_is_sure_of_what_is_invented():
    start = np.full((6, 4, 4, 1), 0.5, np.float32)
    labels = np.arange(6) % 3
    params = normal(16, 3)

    def logits_of(params, x):
        return x.reshape(len(x), -1) @ params

    made = jax.jit(inventor(logits_of, 20))(params, start, labels)
    assert (logits_of(params, start).argmax(-1) == labels).sum() == 2
    assert (logits_of(params, made).argmax(-1) == labels).all()
    assert made.min() >= 0 and made.max() <= 1
