# SPDX-License-Identifier: Apache-2.0
import functools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import research.on_policy
from jaxcompress import distill
from research.on_policy import _network as network
from research.on_policy.__main__ import main
from research.on_policy._config import config_of, rates
from research.on_policy._rows import ALONE, Row, rows
from research.on_policy._tables import TEACHER, WARM, Record, markdown, summary
from research.on_policy._train import behind, loss_of, written

pytestmark = pytest.mark.slow

FOLDER = Path(research.on_policy.__file__).parent
CLASSES, PROMPT = 6, 3
TOKENS = jnp.asarray(np.random.default_rng(0).integers(CLASSES, size=(5, 8)), jnp.int32)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("tensorflow_datasets")
    folder = tmp_path_factory.mktemp("study")
    (folder / "text").mkdir()
    (folder / "text" / "play.txt").write_text("To be, or not to be.\n" * 100)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFDS_DATA_DIR", str(folder / "prepared"))
        out, text = folder / "out", folder / "text"
        assert main(["--quick", "--data-dir", str(text), "--out", str(out)]) == 0
    return out


def records(folder):
    content = json.loads((folder / "results.json").read_text())
    return [Record(**record) for record in content["records"]]


def test_every_row_is_there_and_drawn(finished):
    names = [r.row for r in records(finished)]
    assert names == [TEACHER, WARM, *(row.name for row in rows(quick=True))]
    assert (finished / "results.png").stat().st_size > 10_000


def test_a_teacher_is_no_distance_from_itself(finished):
    teacher, *others = records(finished)
    assert teacher.kl == teacher.own_kl == teacher.own_reverse_kl == 0
    assert teacher.likely == teacher.entropy
    assert all(r.kl > 0 and r.own_reverse_kl > 0 for r in others)


def pair():
    return network.initial(0, CLASSES, 4), network.initial(1, CLASSES, 7)


def test_the_network_reads_a_sequence_as_it_reads_characters():
    params, _ = pair()
    state = network.start(params, len(TOKENS))
    read, step = jax.jit(network.logits), jax.jit(network.step)
    whole = read(params, TOKENS)
    for t in range(TOKENS.shape[1]):
        state, logits = step(params, state, TOKENS[:, t])
        np.testing.assert_allclose(logits, whole[:, t], rtol=1e-4, atol=1e-5)
    distill.check_causal(functools.partial(read, params), TOKENS)


@pytest.mark.parametrize("writer", ["student", "teacher"])
def test_a_loss_is_of_the_sequences_and_characters_that_it_says(writer):
    student, teacher = pair()
    key, row = jax.random.key(3), Row(writer, "reverse_kl", 1.0)
    got = jax.jit(loss_of(row, PROMPT))(student, TOKENS, teacher, rng=key)
    write = jax.jit(written, static_argnums=2)
    params = {"teacher": teacher, "student": student}[writer]
    tokens, counts = write(params, TOKENS, PROMPT, jax.random.split(key)[0])
    assert (tokens[:, :PROMPT] == TOKENS[:, :PROMPT]).all()
    assert (tokens != TOKENS).any() and counts.sum() == 5 * (8 - PROMPT)
    read = jax.jit(network.logits)
    logits = [read(params, tokens[:, :-1]) for params in pair()]
    each = distill.reverse_kl(logits[0], logits[1])[:, PROMPT - 1 :]
    np.testing.assert_allclose(got, each.mean(), rtol=1e-4)
    following = jax.jit(behind, static_argnums=3)(student, teacher, tokens, PROMPT)[2]
    np.testing.assert_array_equal(following, tokens[:, PROMPT:])


def test_rows_differ_only_in_what_they_say():
    made = rows(quick=False)
    assert len({row.name for row in made}) == len(made) == 11
    assert made[0] == ALONE and set(rows(quick=True)) <= set(made)
    assert {row.loss for row in made} == set(rates())
    assert config_of("shakespeare", seeds=None, quick=False).seeds == 3


def test_rates_are_chosen_without_the_test_set():
    made = json.loads((FOLDER / "choices.json").read_text())
    assert made["split"] == "validation" and made["seed"] not in range(3)


def test_the_readme_says_what_the_results_say():
    made = records(FOLDER)
    content = json.loads((FOLDER / "results.json").read_text())
    assert content["rows"] == summary(made)["rows"]
    names = [row.name for row in rows(quick=False)]
    assert list(dict.fromkeys(r.row for r in made)) == [TEACHER, WARM, *names]
    assert {r.seed for r in made} == {0, 1, 2}
    assert markdown(made) in (FOLDER / "README.md").read_text()
    for r in made:  # the mean over samples of what the divergence computes exactly
        np.testing.assert_allclose(r.likely - r.entropy, r.own_reverse_kl, atol=0.03)
