# SPDX-License-Identifier: Apache-2.0
"""Other post-training quantizers, on the float files that were exported here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Peer(NamedTuple):
    """A file of another quantizer.

    Attributes:
      name: what made it.
      path: the file.
      prepare: makes its input from floats.
    """

    name: str
    path: Path
    prepare: Callable[[np.ndarray], np.ndarray]


def quantized(
    files: Mapping[str, Path], calibration: np.ndarray, batch: int
) -> Iterator[Peer]:
    """Quantize float files with the tools of their runtimes, as far as they are installed.

    Args:
      files: exported float files, by ending.
      calibration: arrays for calibration.
      batch: rows that a file takes.

    Yields:
      Their files.
    """
    makers = {
        ".tflite": ("ai_edge_quantizer", _ai_edge),
        ".onnx": ("onnxruntime", _onnxruntime),
    }
    rows = calibration[: len(calibration) // batch * batch]
    batches = rows.reshape(-1, batch, *calibration.shape[1:])[:128]
    for ending, (package, make) in makers.items():
        if not files[ending].exists():
            continue
        if importlib.util.find_spec(package) is None:
            print(f"left out: {package} is not installed")
            continue
        yield from make(files[ending], batches)


def _ai_edge(path: Path, batches: np.ndarray) -> Iterator[Peer]:
    """Quantize with LiteRT's own quantizer."""
    from ai_edge_quantizer import quantizer, recipe  # pyright: ignore[reportMissingImports]

    recipes: dict[str, Any] = {
        "dynamic": recipe.dynamic_wi8_afp32(),
        "static": recipe.static_wi8_ai8(),
    }
    for name, chosen in recipes.items():
        made = quantizer.Quantizer(str(path), chosen)
        statistics = None
        if made.need_calibration:
            data = {"serving_default": [{"input_0": b} for b in batches]}
            statistics = made.calibrate(data)
        out = path.with_name(f"ai-edge-quantizer {name}.tflite")
        made.quantize(statistics).export_model(str(out), overwrite=True)
        yield Peer(f"ai-edge-quantizer {name}", out, _input_codes(out))


def _input_codes(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """Return what makes inputs of a file that takes integers."""
    from ai_edge_litert.interpreter import (  # pyright: ignore[reportMissingImports]
        Interpreter,
    )

    (given,) = Interpreter(model_path=str(path)).get_input_details()
    scale, zero_point = given["quantization"]
    if not scale:
        return lambda x: x
    return lambda x: np.clip(np.round(x / scale) + zero_point, -128, 127).astype(
        np.int8
    )


def _onnxruntime(path: Path, batches: np.ndarray) -> Iterator[Peer]:
    """Quantize with ONNX Runtime's own quantizer."""
    import onnx  # pyright: ignore[reportMissingImports]
    from onnxruntime import quantization  # pyright: ignore[reportMissingImports]

    name = onnx.load(path).graph.input[0].name

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.rows = iter(batches)

        def get_next(self) -> dict[str, np.ndarray] | None:
            rows = next(self.rows, None)
            return None if rows is None else {name: rows}

    out = path.with_name("onnxruntime static.onnx")
    quantization.quantize_static(
        path, out, Reader(), per_channel=True, quant_format=quantization.QuantFormat.QDQ
    )
    yield Peer("ONNX Runtime's quantizer", out, lambda x: x)
