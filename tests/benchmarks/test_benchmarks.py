# SPDX-License-Identifier: Apache-2.0
import importlib
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import benchmarks
from benchmarks import _models, step_overhead, threshold
from jaxcompress import numerics

pytestmark = pytest.mark.slow

FOLDER = Path(benchmarks.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[!_]*.py"))
TIMED = [n for n in NAMES if n not in ("combinations", "damage", "mission")]  # others


@pytest.mark.parametrize("name", TIMED)
def test_a_benchmark_runs_and_its_last_line_is_json(name, capsys):
    importlib.import_module(f"benchmarks.{name}").main(["--quick"])
    known = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (known["benchmark"], known["quick"], known["rounds"]) == (name, True, 2)
    names = [row["name"] for row in known["rows"]]
    assert len(set(names)) == len(names) > 2
    assert any(name.endswith("(again)") for name in names)
    for row in (row for row in known["rows"] if "ratio" in row):
        assert 0 < row["minimum"] <= row["median"] <= row["p90"]
        assert 0 < row["ratio"][0] <= row["ratio"][1] <= row["ratio"][2]


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert stopped.value.code == 0
    help_text = capsys.readouterr().out
    assert f"python -m benchmarks.{name}" in help_text
    assert "--rounds" in help_text and "--quick" in help_text


@pytest.mark.parametrize("name", NAMES)
def test_the_readme_names_every_benchmark(name):
    assert f"python -m benchmarks.{name}" in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["threshold", "--size", "1500"], "--size 1500: not a positive multiple"),
        (["threshold", "--size", "-1000"], "--size -1000: not a positive multiple"),
        (["step_overhead", "--steps", "0"], "--steps 0: a block has 1 step or more"),
        (["integer_forward", "--width", "0"], "--width 0: 1 or more"),
        (["gptq", "--group", "7"], "--group 7: does not divide 1024 features evenly"),
        (
            ["pretrained", "--group", "7"],
            "--group 7: does not divide 32 features evenly",
        ),
        (["artifact", "--width", "0"], "--width 0: a matrix has 1 row or more"),
    ],
    ids=str,
)
def test_bad_options(command, message, capsys):
    name, *options = command
    with pytest.raises(SystemExit):
        importlib.import_module(f"benchmarks.{name}").main(options)
    assert message in capsys.readouterr().err


def test_a_wrong_mask_ends_the_threshold_benchmark(monkeypatch):
    right = numerics.smallest
    monkeypatch.setattr(numerics, "smallest", lambda x, n: right(x, n).at[0].set(True))
    with pytest.raises(SystemExit, match="1 of 4 differ from a stable sort"):
        threshold._checked(jnp.array([9.0, 1.0, 2.0, 3.0]), jnp.int32(2))


@pytest.mark.parametrize(
    ("name", "batch", "weights"),
    [("mlp", 128, 266_610), ("conv", 32, 38_570)],
)
def test_the_networks_are_those_described(name, batch, weights):
    def make():
        task = _models.make(name, quick=False)
        return task.params, task.logits(task.params, task.batches[0]["x"]), task.batches

    params, logits, batches = jax.eval_shape(make)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights
    assert logits.shape == (batch, 10)
    assert all(each["teacher"].shape == (batch, 10) for each in batches)


def test_convolutions_train_with_everything_on():
    task = _models.make("conv", quick=True)
    variants = step_overhead._variants(task, steps=1)
    state, metrics = variants["mask every 100 + 4 bits + distilled"]()
    assert jnp.isfinite(metrics["loss"])
    kernel = state.params["Layer_1"]["kernel"]
    assert int((kernel == 0).sum()) == round(0.9 * kernel.size)
