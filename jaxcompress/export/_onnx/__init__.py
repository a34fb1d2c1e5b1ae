# SPDX-License-Identifier: Apache-2.0
"""ONNX files, for ONNX Runtime and OpenVINO on PCs and servers."""

from ...program.dataflow import Constant, Graph, Operation
from .._backend import Backend
from .._versions import require
from . import _openvino, _runtime
from ._emit import Emitted, emit


def convert(graph: Graph) -> tuple[bytes, list[str]]:
    """Return a graph as the content of an .onnx file, and notes.

    Raises:
      ImportError: if onnx is missing or has another version.
      UnsupportedOperation: naming the operations that ONNX does not have.
    """
    require(*_runtime.ONNX)
    model, differences = emit(graph)
    return model.SerializeToString(), differences


def _reason(op: Operation) -> str:
    if any(n > 1 for n in op.params.get("lhs_dilation", ())):
        return "runtimes keep transposed convolutions in floats"
    for x in op.ins:
        codes = x.codes if isinstance(x, Constant) else None
        if codes is not None and codes.format.bits <= 4:
            return f"weights of {codes.format.bits} bits are stored, not multiplied"
    return ""


ONNX = Backend(
    "ONNX Runtime",
    ".onnx",
    any_batch=True,
    convert=convert,
    load=_runtime.load,
    operators=_runtime.operators,
    products=frozenset(
        {"MatMulIntegerToFloat", "QGemm", "QLinearConv", "QLinearMatMul"}
    ),
    reason=_reason,
    integer_outputs=frozenset({"conv_general_dilated"}),
)

OPENVINO = Backend(
    "OpenVINO",
    ".onnx",
    any_batch=True,
    convert=convert,
    load=_openvino.load,
    operators=_openvino.operators,
    products=frozenset(
        f"{name} {kind}"
        for name in ("Convolution", "FullyConnected", "MatMul")
        for kind in ("i8", "u8")
    ),
    reason=_reason,
    integer_outputs=frozenset({"conv_general_dilated"}),
)

__all__ = ["ONNX", "OPENVINO", "Emitted", "convert", "emit"]
