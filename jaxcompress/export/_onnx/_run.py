# SPDX-License-Identifier: Apache-2.0
"""Models in onnxruntime: what they compute, and by which operators."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ._versions import package

_DTYPES = {
    "tensor(bool)": np.bool_,
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int16)": np.int16,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(int8)": np.int8,
    "tensor(uint16)": np.uint16,
    "tensor(uint32)": np.uint32,
    "tensor(uint8)": np.uint8,
}


def run(
    model: str | os.PathLike | bytes, *args: Any, threads: int | None = None
) -> list:
    """Run a model in onnxruntime on the CPU.

    Args:
      model: path of the file, or its bytes.
      *args: arrays, in the order of the inputs.
      threads: number of threads; None is the choice of onnxruntime.

    Returns:
      The outputs, as a list of numpy arrays.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not a model, or the arrays do not fit its inputs.
    """
    session = _session(model, threads)
    inputs = session.get_inputs()
    if len(args) != len(inputs):
        names = ", ".join(x.name for x in inputs)
        raise ValueError(
            f"the model has {len(inputs)} inputs ({names}), got {len(args)}."
        )
    feeds = {
        x.name: checked(x.name, _DTYPES[x.type], x.shape, arg)
        for x, arg in zip(inputs, args, strict=True)
    }
    return session.run(None, feeds)


def operators(model: str | os.PathLike | bytes) -> list[str]:
    """Return the types of the operators that onnxruntime runs, in order.

    It fuses operators when it loads a model: a product of integers is a ``QLinearConv`` or
    ``QGemm``, a product of floats a ``Conv``, ``FusedConv`` or ``Gemm``.

    Args:
      model: path of the file, or its bytes.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if the file is not a model.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimized.onnx")
        _session(model, 1, path)
        return [node.op_type for node in onnx.load(path).graph.node]


def _session(model: Any, threads: int | None, optimized: str = "") -> Any:
    ort = package("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Otherwise it rounds the floats that are multiplied with integer weights, unasked.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    if optimized:
        options.optimized_model_filepath = optimized
        # What depends on this machine (blocked layouts) would not be one operator each.
        options.graph_optimization_level = (
            ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        )
    data = model if isinstance(model, bytes) else Path(model).read_bytes()
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common base
        source = "these bytes" if isinstance(model, bytes) else os.fspath(model)
        raise ValueError(
            f"onnxruntime cannot load {source}; the file is damaged or no ONNX model: "
            f"{error}"
        ) from error


def checked(name: str, dtype: Any, shape: Sequence[Any], arg: Any) -> np.ndarray:
    """Return an argument as an array that fits an input.

    Raises:
      ValueError: if it does not fit.
    """
    array = np.asarray(arg)
    if array.dtype.name == "bfloat16" and dtype == np.float32:
        array = array.astype(np.float32)
    if array.dtype != dtype:
        raise ValueError(
            f"input {name!r} must be {np.dtype(dtype).name}, got {array.dtype.name}."
        )
    fits = array.ndim == len(shape) and all(
        not isinstance(n, int) or n == m
        for n, m in zip(shape, array.shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"input {name!r} must have shape {tuple(shape)}, got {array.shape}."
        )
    return array
