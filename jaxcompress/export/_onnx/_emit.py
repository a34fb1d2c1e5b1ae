# SPDX-License-Identifier: Apache-2.0
"""A graph, written as an ONNX model."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import helper

from .._errors import Problem, UnsupportedOperation
from .._graph import Graph, Operation, Tensor
from . import (
    _codes,
    _conv,
    _dense,
    _elementwise,
    _index,
    _norms,
    _parts,
    _reduce,
    _shape,
)
from ._build import Build, Unsupported, carrier, onnx_type
from ._fuse import fuse
from ._value import Value, full, natural

RULES = {
    **_codes.RULES,
    **_conv.RULES,
    **_dense.RULES,
    **_elementwise.RULES,
    **_index.RULES,
    **_norms.RULES,
    **_parts.RULES,
    **_reduce.RULES,
    **_shape.RULES,
}
OPSETS = range(18, 24)
_MAX_BYTES = 2**31 - 2**20


class Emitted(NamedTuple):
    """An ONNX model.

    Attributes:
      model: the model.
      differences: what it computes otherwise than the graph, as sentences.
    """

    model: onnx.ModelProto
    differences: list[str]


def emit(graph: Graph, *, opset: int = 21) -> Emitted:
    """Write a graph as an ONNX model.

    Axes are moved as bookkeeping: channels come before positions throughout the model, and
    inputs and outputs keep their layout.

    Args:
      graph: the graph. Axes of the batch, if it may vary, must be longer than 1.
      opset: version of the ONNX operators, 18 to 23. Codes of 4 and 16 bits need 21.

    Returns:
      The model, and what it computes otherwise than the graph.

    Raises:
      UnsupportedOperation: if an operation has no counterpart; it lists all of them.
      ValueError: if the model would be larger than the 2 GB that one file can hold.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset must be from 18 to 23, got {opset}.")
    graph = fuse(graph, opset)
    b = Build(graph, opset)
    inputs = [
        _input(b, x, name)
        for x, name in zip(graph.inputs, graph.input_names, strict=True)
    ]
    problems = []
    for operation in graph.operations:
        problem = _write(b, operation)
        if problem is not None:
            problems.append(problem)
    if problems:
        raise UnsupportedOperation("ONNX", problems)
    outputs = _outputs(b, graph)
    size = sum(tensor.ByteSize() for tensor in b.initializers.values())
    if size > _MAX_BYTES:
        raise ValueError(
            f"the constants of the model take {size / 1e9:.1f} GB, and an ONNX file holds "
            "2 GB. Quantize it, or export it in parts."
        )
    body = helper.make_graph(
        _used(b.nodes, graph.output_names),
        "jaxcompress",
        inputs,
        outputs,
        [],
    )
    read = {name for node in body.node for name in node.input}
    body.initializer.extend(t for name, t in b.initializers.items() if name in read)
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(
        body,
        opset_imports=imports,
        producer_name="jaxcompress",
        ir_version=helper.find_min_ir_version_for(imports),
    )
    return Emitted(model, list(b.differences))


def _write(b: Build, operation: Operation) -> Problem | None:
    """Write an operation, or return why it cannot be."""
    b.scope = operation.scope
    reason = ""
    rule = RULES.get(operation.primitive)
    if rule is not None:
        try:
            rule(b, operation)
            return None
        except Unsupported as error:
            reason = str(error)
    for out in operation.outs:  # later operations are looked at all the same
        b.values[id(out)] = Value("unsupported", natural(out.shape), out.batch)
    return Problem.of(operation, reason)


def _input(b: Build, x: Tensor, name: str) -> onnx.ValueInfoProto:
    dtype = np.dtype(x.dtype)
    if dtype.name == "bfloat16":
        b.differences["inputs of bfloat16 are float32, which numpy knows"] = None
        dtype = np.dtype(np.float32)
    if dtype.name in ("float16", "bfloat16") or x.dtype != dtype:
        b.differences["16-bit floats are computed in float32"] = None
    for axis in x.batch:
        if x.shape[axis] == 1:
            raise ValueError(
                f"the batch of input {name!r} must be longer than 1 in the example, to "
                "tell its axis from others of length 1."
            )
        b.set_batch(name, axis, x.shape[axis])
    computed = carrier(dtype)
    value = name if computed == dtype else b.cast(name, computed)
    b.define(x, value, natural(x.shape))
    return helper.make_tensor_value_info(name, onnx_type(dtype), _dimensions(x))


def _dimensions(x: Tensor) -> list[int | str]:
    return ["batch" if a in x.batch else n for a, n in enumerate(x.shape)]


def _outputs(b: Build, graph: Graph) -> list[onnx.ValueInfoProto]:
    infos = []
    for atom, name in zip(graph.outputs, graph.output_names, strict=True):
        value, dtype = b.read(atom), np.dtype(atom.dtype)
        stored = full(b, value, atom.shape, natural(atom.shape))
        if dtype.name == "bfloat16":
            dtype = np.dtype(np.float32)
        if carrier(dtype) != dtype:
            stored = b.cast(stored, dtype)
        b.nodes.append(helper.make_node("Identity", [stored], [name], name=name))
        batch = atom.batch if isinstance(atom, Tensor) else frozenset()
        sizes: list[int | str | None] = [
            "batch" if a in batch else None if a in value.scaled else n
            for a, n in enumerate(atom.shape)
        ]
        infos.append(helper.make_tensor_value_info(name, onnx_type(dtype), sizes))
    return infos


def _used(nodes: list[onnx.NodeProto], outputs: list[str]) -> list[onnx.NodeProto]:
    """Return the nodes that an output depends on."""
    wanted, used = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted.update(node.input)
            used.append(node)
    return used[::-1]
