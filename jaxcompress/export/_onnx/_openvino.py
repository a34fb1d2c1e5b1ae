# SPDX-License-Identifier: Apache-2.0
"""Run models in OpenVINO."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from .._backend import Session
from .._versions import require
from ._arguments import Input, fitting

RUNTIME = ("openvino", "2026.4", "openvino")


def load(content: bytes, threads: int | None = None) -> Session:
    """Return a function that runs a model on the CPU, with floats of 32 bits.

    Raises:
      ImportError: if OpenVINO is missing or has another version.
      ValueError: if the file is damaged or not a model.
    """
    compiled = _compiled(content, threads)
    inputs = []
    for x in compiled.inputs:
        shape = [n.get_length() if n.is_static else "?" for n in x.partial_shape]
        inputs.append(Input(x.any_name, np.dtype(x.element_type.to_dtype()), shape))

    def run(*arrays: Any) -> list[np.ndarray]:
        results = compiled(fitting(inputs, arrays))
        return [np.array(results[out]) for out in compiled.outputs]

    return run


def operators(content: bytes) -> dict[str, int]:
    """Count the operators that OpenVINO runs, each with the type that it computes in."""
    model = _compiled(content, 1).get_runtime_model()
    names = []
    for node in model.get_ordered_ops():
        info = node.get_rt_info()
        names.append(f"{_text(info['layerType'])} {_text(info['runtimePrecision'])}")
    return dict(Counter(names))


def _text(value: Any) -> str:
    return str(getattr(value, "astype", lambda _: value)(str))


def _compiled(content: bytes, threads: int | None) -> Any:
    require(*RUNTIME)
    import openvino  # pyright: ignore[reportMissingImports]

    # Without the hint, floats have 16 bits on CPUs that have such products.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        return core.compile_model(core.read_model(bytes(content)), "CPU", config)
    except RuntimeError as error:
        raise ValueError(
            f"OpenVINO cannot load the file: {error}. Is it damaged, or not an .onnx file?"
        ) from error
