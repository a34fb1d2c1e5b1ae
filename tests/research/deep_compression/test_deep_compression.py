# SPDX-License-Identifier: Apache-2.0
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxcompress as jc
from jaxcompress import report
from research import common
from research.data import load
from research.deep_compression.__main__ import main
from research.deep_compression._config import DEFAULTS, config_of
from research.deep_compression._networks import MODELS
from research.deep_compression._tables import CONTROL, PACKED
from research.deep_compression._train import mean_logits

pytestmark = pytest.mark.slow

TINY = ["--seeds", "1", "--dense-epochs", "3", "--epochs", "12", "--batch-size", "100"]
ROWS = ["dense", "pruned", "+ quantized", "+ distilled", "by rate", PACKED, CONTROL]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main([*TINY, "--out", str(out)]) == 0
    return out


def results(out):
    return json.loads((out / "results.json").read_text())


def test_the_results_hold_what_the_table_shows(finished):
    summary = results(finished)
    assert list(summary["rows"]) == ROWS
    for name, row in summary["rows"].items():
        record = report.Record.from_json(json.dumps(summary["records"][name][0]))
        assert record.size is not None and record.metric("accuracy", "test")
        file = finished / f"seed0-{name.strip('+ ').replace(' ', '-')}.safetensors"
        assert record.size.file_bytes == file.stat().st_size == row["file_bytes"]
        assert record.simulated == (name not in ("dense", CONTROL))
    assert (finished / "results.png").stat().st_size > 10_000


def test_accuracies_are_those_of_the_reloaded_files(finished):
    digits = load("digits")
    rows = results(finished)["rows"]
    model = MODELS["lenet_300_100"](classes=10)
    params = jc.dense(jc.load(finished / "seed0-packed.safetensors"))
    again = common.accuracy(model, params, digits.test)
    assert again == rows[PACKED]["accuracy"] == rows["by rate"]["accuracy"]
    params = jc.dense(jc.load(finished / "seed0-distilled.safetensors"))
    kernels = [params[f"Dense_{i}"]["kernel"] for i in range(3)]
    zeros = sum(int((k == 0).sum()) for k in kernels) / sum(k.size for k in kernels)
    assert zeros >= 0.9 - 1e-3


def test_the_control_is_no_larger_than_the_file(finished):
    summary = results(finished)
    packed = summary["rows"][PACKED]["file_bytes"]
    control = jc.load(finished / "seed0-small-dense.safetensors")
    floats = 4 * sum(x.size for x in jax.tree.leaves(control))
    assert floats <= packed


def test_resuming_a_finished_run_repeats_nothing(finished, capsys):
    before = {f.name: f.stat().st_mtime_ns for f in finished.glob("seed0-*")}
    assert main([*TINY, "--out", str(finished), "--resume"]) == 0
    assert {f.name: f.stat().st_mtime_ns for f in finished.glob("seed0-*")} == before
    assert "dense" in capsys.readouterr().out


def test_more_seeds_can_be_added(finished):
    more = [*TINY, "--out", str(finished), "--resume"]
    more[1] = "2"
    assert main(more) == 0
    row = results(finished)["rows"]["dense"]
    assert row["spread"] is not None


def test_a_damaged_file_is_named(finished, tmp_path, capsys):
    out = shutil.copytree(finished, tmp_path / "out")
    file = out / "seed0-dense.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    (out / "seed0-pruned.safetensors").unlink()  # which starts from that file
    assert main([*TINY, "--out", str(out), "--resume"]) == 1
    error = capsys.readouterr().err
    assert "seed0-dense.safetensors" in error and "Move that file away" in error


def interrupted(out, options, after, how):
    """Stop a run a moment after one of its stages has ended."""
    env = {**os.environ, "XLA_FLAGS": ""}
    # A shell's background job ignores Ctrl-C, and so would the child of tests that are one.
    start = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('research.deep_compression', run_name='__main__')"
    )
    command = [sys.executable, "-c", start, *options]
    child = subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        cwd=Path(__file__).parents[3],
    )
    deadline = time.monotonic() + 120
    while not (out / f"{after}.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    # In the middle of the next stage, which other tests beside it must not outlast.
    time.sleep(0.1)
    while child.poll() is None and time.monotonic() < deadline:
        child.send_signal(how)  # again, since a callback of the interpreter may eat one
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=2)
    _, error = child.communicate(timeout=120)
    return child.returncode, error


def test_stopped_at_any_moment_it_resumes_to_the_same_result(finished, tmp_path):
    out = tmp_path / "out"
    code, error = interrupted(out, TINY, "seed0-dense", signal.SIGINT)
    assert code == 130 and "--resume" in error and "Traceback" not in error
    again = [*TINY, "--resume"]
    code, _ = interrupted(out, again, "seed0-pruned", signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert main([*again, "--out", str(out)]) == 0
    for name in ("seed0-dense", "seed0-distilled", "seed0-packed", "seed0-small-dense"):
        one, two = (d / f"{name}.safetensors" for d in (finished, out))
        assert one.read_bytes() == two.read_bytes()


def test_a_curve_is_added_to_a_finished_run(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "out")
    dense = (out / "seed0-dense.safetensors").stat().st_mtime_ns
    assert main([*TINY, "--out", str(out), "--resume", "--curve"]) == 0
    assert (out / "seed0-dense.safetensors").stat().st_mtime_ns == dense
    rows = results(out)["rows"]
    sizes = [rows[f"rate x {m}"]["file_bytes"] for m in ("0.05", "0.1", "0.4", "1")]
    assert sizes == sorted(sizes, reverse=True) and "98 % pruned, 3 bits" in rows


def test_weight_sharing_runs_in_place_of_quantization(tmp_path):
    assert main([*TINY, "--clusters", "8", "--out", str(tmp_path / "out")]) == 0
    tree = jc.load(tmp_path / "out" / "seed0-distilled.safetensors")
    assert isinstance(tree["Dense_0"]["kernel"], jc.Codebook)


def test_several_networks_teach_together_and_have_no_row(tmp_path):
    out = tmp_path / "out"
    assert main([*TINY, "--teachers", "2", "--out", str(out)]) == 0
    assert list(results(out)["rows"]) == ROWS
    first, second = (
        jc.load(out / f"seed0-{name}.safetensors") for name in ("dense", "teacher-1")
    )
    assert not np.array_equal(first["Dense_0"]["kernel"], second["Dense_0"]["kernel"])


def test_the_mean_of_teachers_is_that_of_their_probabilities():
    logits = [np.random.default_rng(i).normal(size=(4, 3)) for i in range(3)]
    np.testing.assert_allclose(
        jax.nn.softmax(mean_logits(logits)),
        np.mean([jax.nn.softmax(x) for x in logits], axis=0),
        rtol=1e-5,
    )
    assert mean_logits(logits[:1]) is logits[0]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_maps_examples_to_logits(name):
    x = np.zeros((3, 64), np.int32) if name == "characters" else np.ones((3, 8, 8, 1))
    model = MODELS[name](classes=7)
    params = model.init(jax.random.key(0), x)
    assert np.asarray(model.apply(params, x)).shape == (3, 7)


def test_defaults_are_complete():
    for name in DEFAULTS:
        assert config_of(name, seeds=None, quick=False).seeds == 3
