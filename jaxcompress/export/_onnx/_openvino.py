# SPDX-License-Identifier: Apache-2.0
"""Models in OpenVINO."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ._run import checked
from ._versions import package


def run_openvino(
    model: str | os.PathLike | bytes, *args: Any, threads: int | None = None
) -> list:
    """Run a model in OpenVINO on the CPU, with floats of 32 bits.

    Args:
      model: path of the ONNX file, or its bytes.
      *args: arrays, in the order of the inputs.
      threads: number of threads; None is the choice of OpenVINO.

    Returns:
      The outputs, as a list of numpy arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not a model, or the arrays do not fit its inputs.
    """
    openvino = package("openvino", "openvino")
    # Without the hint, floats have 16 bits on CPUs that have them.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
    if threads is not None:
        config["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    if not isinstance(model, bytes) and not os.path.exists(model):
        raise FileNotFoundError(f"no such file: {os.fspath(model)}")
    try:
        source = model if isinstance(model, bytes) else os.fspath(model)
        compiled = core.compile_model(core.read_model(source), "CPU", config)
    except RuntimeError as error:
        name = "these bytes" if isinstance(model, bytes) else os.fspath(model)
        raise ValueError(
            f"OpenVINO cannot load {name}; the file is damaged or no ONNX model: {error}"
        ) from error
    inputs = compiled.inputs
    if len(args) != len(inputs):
        raise ValueError(f"the model has {len(inputs)} inputs, got {len(args)}.")
    feeds = []
    for x, arg in zip(inputs, args, strict=True):
        shape = [n.get_length() if n.is_static else str(n) for n in x.partial_shape]
        dtype = np.dtype(x.element_type.to_dtype())
        feeds.append(checked(x.any_name, dtype, shape, arg))
    results = compiled(feeds)
    return [results[out] for out in compiled.outputs]
