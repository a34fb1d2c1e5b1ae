# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from draws import normal

import research.distillation_schemes
from research.distillation_schemes.__main__ import main
from research.distillation_schemes._rows import ASSISTANT, ASSISTED, INVENTED, ROWS
from research.distillation_schemes._tables import markdown
from research.distillation_schemes._train import inventor
from research.students import TEACHER, TEACHERS, Record, grouped, summary

pytestmark = pytest.mark.slow

FOLDER = Path(research.distillation_schemes.__file__).parent
ONCE = {TEACHER, TEACHERS, *(r.name for r in (*ROWS, INVENTED)), ASSISTANT, ASSISTED}


def read(folder):
    content = json.loads((folder / "results.json").read_text())
    return content, [Record(**record) for record in content["records"]]


def test_every_row_is_there_and_drawn(tmp_path):
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    assert set(grouped(read(tmp_path)[1])) == {*ONCE, "born again, 1"}
    assert (tmp_path / "results.png").stat().st_size > 10_000


def test_the_readme_says_what_the_results_say():
    content, records = read(FOLDER)
    assert content["rows"] == summary(records)["rows"]
    again = {f"born again, {number}" for number in (1, 2, 3)}
    assert set(grouped(records)) == ONCE | again
    readme = (FOLDER / "README.md").read_text()
    assert [t for t in markdown(records).split("\n\n") if t not in readme] == []


def test_what_both_studies_have_is_one_network():
    other = FOLDER.parent / "distillation"
    ours, theirs = (grouped(read(folder)[1]) for folder in (FOLDER, other))
    pairs = [(n, n) for n in (TEACHER, TEACHERS, "student alone")]
    for mine, same in (*pairs, ("kl", "kl, T = 4")):
        each = ([r.accuracy for r in group] for group in (ours[mine], theirs[same]))
        assert len({tuple(accuracies) for accuracies in each}) == 1


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
