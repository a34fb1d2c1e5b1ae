# SPDX-License-Identifier: Apache-2.0
"""Products that round their input on the fly, for files without calibrated ranges.

The converter writes a packed weight as integers that are made floats before the product.
LiteRT's kernels also take the integers themselves beside a float input, which they then
round row by row (image by image in convolutions) and multiply as integers. So the step
between is taken out of the file. Scales stay as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...program.dataflow import Graph
from .._versions import require
from ._convert import CONVERTER, convert


def convert_hybrid(graph: Graph) -> tuple[bytes, list[str]]:
    """Return a graph as the content of a .tflite file whose products round their inputs."""
    content, notes = convert(graph)
    return _without_floats(content), notes


def _without_floats(content: bytes) -> bytes:
    require(*CONVERTER)
    import flatbuffers
    from litert_converter import (  # pyright: ignore[reportMissingImports]
        schema_py_generated as schema,
    )

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    kinds = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    names = schema.BuiltinOperator
    products = (names.FULLY_CONNECTED, names.CONV_2D, names.DEPTHWISE_CONV_2D)
    for graph in model.subgraphs:
        ops = graph.operators
        floats = {
            op.outputs[0]: op.inputs[0]
            for op in ops
            if kinds[op.opcodeIndex] == names.DEQUANTIZE
        }
        for op in ops:
            kind = kinds[op.opcodeIndex]
            if kind not in products or op.inputs[1] not in floats:
                continue
            if graph.tensors[op.inputs[0]].type != schema.TensorType.FLOAT32:
                continue
            op.inputs = _with_second(op.inputs, floats[op.inputs[1]])
            if kind == names.FULLY_CONNECTED:
                op.builtinOptions.asymmetricQuantizeInputs = True
        read = {i for op in ops for i in op.inputs} | set(graph.outputs)
        graph.operators = [
            op
            for op in ops
            if kinds[op.opcodeIndex] != names.DEQUANTIZE or op.outputs[0] in read
        ]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _with_second(inputs: Any, second: int) -> np.ndarray:
    return np.array([inputs[0], second, *inputs[2:]], np.int32)
