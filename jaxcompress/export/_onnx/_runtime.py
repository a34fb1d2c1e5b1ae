# SPDX-License-Identifier: Apache-2.0
"""Run models in onnxruntime."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from typing import Any

import numpy as np

from .._backend import Session
from .._versions import require
from ._arguments import Input, fitting

ONNX = ("onnx", "1.23", "onnx")
RUNTIME = ("onnxruntime", "1.32", "onnx")

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


def load(content: bytes, threads: int | None = None) -> Session:
    """Return a function that runs a model on the CPU.

    Raises:
      ImportError: if onnxruntime is missing or has another version.
      ValueError: if the file is damaged or not a model.
    """
    session = _session(content, threads)
    inputs = [
        Input(x.name, np.dtype(_DTYPES[x.type]), x.shape) for x in session.get_inputs()
    ]

    def run(*arrays: Any) -> list[np.ndarray]:
        feeds = fitting(inputs, arrays)
        return session.run(None, feeds)

    return run


def operators(content: bytes) -> dict[str, int]:
    """Count the operators that onnxruntime runs, after it has fused those of the file.

    Products on integers have names of their own, such as ``QLinearConv``.
    """
    require(*ONNX)
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "optimized.onnx")
        _session(content, 1, path)
        return dict(Counter(node.op_type for node in onnx.load(path).graph.node))


def _session(content: bytes, threads: int | None, optimized: str = "") -> Any:
    require(*RUNTIME)
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Otherwise it rounds the floats that are multiplied with integer weights, unasked.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    if optimized:
        options.optimized_model_filepath = optimized
        # What depends on this machine (blocked layouts) would not be one operator each.
        level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.graph_optimization_level = level
    try:
        return ort.InferenceSession(
            bytes(content),
            options,
            providers=["CPUExecutionProvider"],
            # It would round dense weights between rounded activations, unasked.
            disabled_optimizers=["WeightBiasQuantization"],
        )
    except Exception as error:  # its errors have no common base
        raise ValueError(
            f"onnxruntime cannot load the file: {error}. Is it damaged, or not an .onnx "
            "file?"
        ) from error
