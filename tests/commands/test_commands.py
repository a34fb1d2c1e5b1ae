# SPDX-License-Identifier: Apache-2.0
"""The command line exports, runs and times files."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from recorded import accurate, measured

import jaxcompress as jc
from jaxcompress import report
from jaxcompress.commands import main

MODEL = "def dense(params, x):\n    return x @ params['w']\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_model.py").write_text(MODEL)
    w = jax.random.normal(jax.random.key(0), (4, 8))
    jc.save("w.jc", jc.compress(jc.weight_quantization(bits=8, where="w"), {"w": w}))
    np.save("x.npy", np.ones((2, 4), np.float32))
    np.savez("many.npz", np.linspace(-1, 1, 40, dtype=np.float32).reshape(10, 4))
    yield tmp_path
    sys.modules.pop("my_model", None)


def test_a_function_is_exported_run_and_timed(folder, capsys):
    command = ["export", "my_model:dense", "w.jc", "a.stablehlo", "--example", "x.npy"]
    assert main(command) == 0
    assert main(["run", "a.stablehlo", "x.npy", "--output", "out.npz"]) == 0
    w = jc.dense(jc.load("w.jc"))["w"]
    out = np.load("out.npz")["arr_0"]
    np.testing.assert_allclose(out, np.ones((2, 4)) @ w, atol=1e-5)
    assert "output 0: float32[2, 8]" in capsys.readouterr().out
    files = ["a.stablehlo", "a.stablehlo"]
    timed = ["bench", *files, "--inputs", "x.npy", "--rounds", "2"]
    assert main([*timed, "--memory"]) == 0
    assert float(capsys.readouterr().out.splitlines()[-1].split()[3]) > 0
    assert main(timed) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("1.000  a.stablehlo")


def test_calibration_rounds_activations(folder, capsys):
    pytest.importorskip("onnxruntime")
    command = ["export", "my_model:dense", "w.jc", "a.onnx", "--example", "x.npy"]
    assert main([*command, "--calibrate", "many.npz"]) == 0
    assert "1 of 1 products run on integers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (["export", "my_model", "w.jc", "a.onnx", "--example", "x.npy"], "module:name"),
        (
            ["export", "my_model:dense", "w.jc", "a.bin", "--example", "x.npy"],
            "output must end in one of .tflite, .onnx, .stablehlo, got 'a.bin'",
        ),
        (
            ["export", "my_model:wide", "w.jc", "a.onnx", "--example", "x.npy"],
            "has no attribute 'wide'",
        ),
        (["run", "a.onnx", "x.npy"], "No such file"),
        (
            ["bench", "x.stablehlo", "--inputs", "x.npy", "--threads", "0"],
            "threads must be at least 1, got 0",
        ),
        (["run", "x.npy", "w.jc"], "'w.jc' is not a .npy or .npz file"),
        (["inspect", "x.npy"], "not a jaxcompress file"),
        (["inspect", "missing.jc"], "there is no file 'missing.jc'"),
        (["report", "x.npy"], "'x.npy' cannot be read"),
    ],
)
def test_mistakes_are_one_line(folder, capsys, command, text):
    assert main(command) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and text in error


def test_the_module_is_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "jaxcompress", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "export" in done.stdout


def test_a_file_is_inspected(folder, capsys):
    assert main(["inspect", "w.jc"]) == 0
    head, leaf, *_ = capsys.readouterr().out.splitlines()
    assert "density" in head and "order-0 bound" in head
    assert leaf.split()[:4] == ["w", "QArray", "int8", "4x8"]


def test_records_are_shown_side_by_side(tmp_path, capsys):
    one, two = (accurate(name, [0.5], size=measured()[0]) for name in "ab")
    files = [str(tmp_path / name) for name in ("a.json", "b.json")]
    for file, record in zip(files, (one, two), strict=True):
        report.save_records(file, record)
    assert main(["report", *files]) == 0
    assert capsys.readouterr().out == report.markdown([one, two])
    assert main(["report", "--merge", files[0], files[0]]) == 1
    assert "every seed must occur once" in capsys.readouterr().err
    assert main(["report", "--merge", *files]) == 0
    assert capsys.readouterr().out == report.markdown([one, two])
    for name in ("r.html", "r.md", "r.svg"):
        assert main(["report", *files, "-o", str(tmp_path / name)]) == 0
        assert "2 models" in capsys.readouterr().out
    page = (tmp_path / "r.html").read_text()
    assert page == report.html([one, two])
    assert (tmp_path / "r.md").read_text() == report.markdown([one, two])
    assert "<svg" in (tmp_path / "r.svg").read_text()
    assert main(["report", *files, "-o", str(tmp_path / "r.pdf")]) == 1
    assert "must end in .html, .md or .svg, got" in capsys.readouterr().err


def test_every_row_calibrates(folder):
    pytest.importorskip("onnxruntime")
    rows = np.zeros((7, 4), np.float32)
    rows[-1] = 9
    np.save("seven.npy", rows)
    command = ["export", "my_model:dense", "w.jc", "a.onnx", "--example", "x.npy"]
    assert main([*command, "--calibrate", "seven.npy"]) == 0
    (out,) = jc.export.run("a.onnx", rows[-1:])
    exact = rows[-1:] @ jc.dense(jc.load("w.jc"))["w"]
    assert np.abs(out - exact).max() < 0.02 * np.abs(exact).max()
