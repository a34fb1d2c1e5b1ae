# SPDX-License-Identifier: Apache-2.0
"""Convert StableHLO text to a .tflite file with LiteRT's converter.

The converter's Python interface is an extension module without documentation, so its
version is pinned and checked.
"""

from __future__ import annotations

from typing import Any

from ...program.dataflow import Graph
from .._errors import UnsupportedOperation
from .._versions import require
from ._lower import lower

CONVERTER = ("litert-converter", "0.5.0", "litert")


def convert(graph: Graph) -> tuple[bytes, list[str]]:
    """Return a graph as the content of a .tflite file, and notes.

    Raises:
      ImportError: if the converter is missing or has another version.
      UnsupportedOperation: if it does not know an operation.
    """
    require(*CONVERTER)
    from litert_converter import converter_api_ext
    from litert_converter.mlir import ir, passmanager

    names = [f"input_{i}" for i in range(len(graph.inputs))]
    outputs = [f"output_{i}" for i in range(len(graph.outputs))]
    context = ir.Context()
    converter_api_ext.prepare_mlir_context(context)
    with context:
        try:
            module = ir.Module.parse(lower(graph))
            operation = module.operation
            converter_api_ext.set_signature(operation, "serving_default", names, outputs)
            converter_api_ext.run_convert_to_tfl_passes(
                module, passmanager.PassManager(), _config(converter_api_ext)
            )
            content = converter_api_ext.export_flatbuffer_to_bytes(operation)
        except Exception as error:
            raise UnsupportedOperation(_reason(graph, error)) from error
    if not content:
        raise UnsupportedOperation(_reason(graph, None))
    return content, []


def _config(api: Any) -> Any:
    config = api.ConvertToTFLConfig()
    # Only so are rounded activations read as the types of integer operators.
    config.strict_qdq_mode = True
    config.model_origin_framework = "PYTORCH"
    return config


def _reason(graph: Graph, error: Exception | None) -> str:
    lines = str(error).strip().splitlines() if error else []
    text = next((x for x in lines if "error" in x.lower()), lines[0] if lines else "")
    primitives = sorted({op.primitive for op in graph.operations})
    return (
        f"LiteRT's converter does not translate the function: {text.strip()[:500]} The "
        f"function consists of {', '.join(primitives)}."
    )
