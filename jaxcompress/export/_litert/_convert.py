# SPDX-License-Identifier: Apache-2.0
"""Convert StableHLO text to a .tflite file with LiteRT's converter.

The converter's Python interface is an extension module without documentation, so its
version is pinned and checked.
"""

from __future__ import annotations

from typing import Any

from ...program.dataflow import Atom, Constant, Graph, Operation, Tensor
from .._errors import UnsupportedOperation
from .._versions import require
from ._lower import lower
from ._runtime import ONE_BATCH, load

CONVERTER = ("litert-converter", "0.5.0", "litert")


def convert(graph: Graph) -> tuple[bytes, list[str]]:
    """Return a graph as the content of a .tflite file, and notes.

    Raises:
      ImportError: if the converter or the runtime is missing or has another version.
      UnsupportedOperation: naming the operations that LiteRT does not have.
    """
    require(*CONVERTER)
    try:
        content = _flatbuffer(graph)
        load(content)
    except ImportError:
        raise
    except Exception as error:
        raise UnsupportedOperation(_reason(graph, error)) from error
    return content, []


def _flatbuffer(graph: Graph) -> bytes:
    from litert_converter import (  # pyright: ignore[reportMissingImports]
        converter_api_ext,
    )
    from litert_converter.mlir import (  # pyright: ignore[reportMissingImports]
        ir,
        passmanager,
    )

    names = [f"input_{i}" for i in range(len(graph.inputs))]
    outputs = [f"output_{i}" for i in range(len(graph.outputs))]
    config = converter_api_ext.ConvertToTFLConfig()
    # Only so are rounded activations read as the types of integer operators.
    config.strict_qdq_mode = True
    config.model_origin_framework = "PYTORCH"
    context = ir.Context()
    converter_api_ext.prepare_mlir_context(context)
    with context:
        module = ir.Module.parse(lower(graph))
        rows = graph.inputs and graph.inputs[0].batch
        signature = "serving_default" if rows else ONE_BATCH
        converter_api_ext.set_signature(module.operation, signature, names, outputs)
        passes = passmanager.PassManager()
        converter_api_ext.run_convert_to_tfl_passes(module, passes, config)
        return converter_api_ext.export_flatbuffer_to_bytes(module.operation)


def _reason(graph: Graph, error: Exception) -> str:
    """Name the operations that cannot be converted by themselves."""
    tried: set[Any] = set()
    failed: list[str] = []
    used = {id(x) for op in graph.operations for x in op.ins}
    used |= {id(x) for x in graph.outputs}
    for op in graph.operations:
        kind = (op.primitive, *((x.shape, str(x.dtype)) for x in op.ins))
        if kind not in tried and not _converts(op, used):
            shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in op.ins)
            where = f" in {op.scope}" if op.scope else ""
            failed.append(f"{op.primitive} of {shapes}{where}")
        tried.add(kind)
    if failed:
        narrow = any("bfloat16" in text for text in failed)
        hint = " Cast bfloat16 to float32 first." if narrow else ""
        return f"LiteRT does not have these operations: {'; '.join(failed)}.{hint}"
    text = " ".join(str(error).split())[:500]
    return f"LiteRT's converter does not translate the function: {text}"


def _converts(op: Operation, used: set[int]) -> bool:
    ins: list[Atom] = [x for x in op.ins if not isinstance(x, Constant)]
    ins = list({id(x): x for x in ins}.values())
    alone = Graph(
        [x for x in ins if isinstance(x, Tensor)],
        [str(i) for i in range(len(ins))],
        [op],
        [x for x in op.outs if id(x) in used],
        [str(i) for i, x in enumerate(op.outs) if id(x) in used],
    )
    try:
        load(_flatbuffer(alone))
    except Exception:
        return False
    return True
