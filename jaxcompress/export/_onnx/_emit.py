# SPDX-License-Identifier: Apache-2.0
"""A graph, written as an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ...program.dataflow import Atom, Graph, Operation, Tensor
from .._errors import UnsupportedOperation
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
from ._build import Build, Node, Unsupported, carrier
from ._fuse import fuse
from ._proto import Port, model
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


class Emitted(NamedTuple):
    """An ONNX model.

    Attributes:
      model: the model, an ``onnx.ModelProto``.
      differences: what it computes otherwise than the graph, as sentences.
    """

    model: Any
    differences: list[str]


def emit(graph: Graph, *, opset: int = 21) -> Emitted:
    """Write a graph as an ONNX model.

    Axes are moved as bookkeeping: channels come before positions throughout the model, and
    inputs and outputs keep their layout.

    Args:
      graph: the graph.
      opset: version of the ONNX operators, 18 to 23. Codes of 4 and 16 bits need 21.

    Returns:
      The model, and what it computes otherwise than the graph.

    Raises:
      UnsupportedOperation: if an operation has no counterpart; it names all of them.
      ValueError: if the model would be larger than the 2 GB that one file can hold.
    """
    if opset not in OPSETS:
        raise ValueError(f"opset must be from 18 to 23, got {opset}.")
    graph = fuse(graph, opset)
    names = _unique([*graph.input_names, *graph.output_names], len(graph.inputs))
    ins, outs = names[: len(graph.inputs)], names[len(graph.inputs) :]
    b = Build(graph, opset, set(names))
    inputs = [_input(b, x, name) for x, name in zip(graph.inputs, ins, strict=True)]
    problems = [text for op in graph.operations if (text := _write(b, op))]
    if problems:
        lines = "\n".join(f"  {problem}" for problem in dict.fromkeys(problems))
        raise UnsupportedOperation(
            f"ONNX does not have these operations, and nothing was written:\n{lines}"
        )
    outputs = [_output(b, x, name) for x, name in zip(graph.outputs, outs, strict=True)]
    made = model(b.nodes, b.initializers, inputs, outputs, opset)
    return Emitted(made, list(b.differences))


def _unique(names: Sequence[str], inputs: int) -> list[str]:
    """Return names of inputs and outputs, none of them empty or double."""
    taken: list[str] = []
    for i, name in enumerate(names):
        kind = "input" if i < inputs else "output"
        name = name or kind
        if name in taken:
            name = f"{kind}/{name}"
        base, number = name, 0
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        taken.append(name)
    return taken


def _write(b: Build, operation: Operation) -> str:
    """Write an operation, or return why it cannot be."""
    b.scope = operation.scope
    reason = ""
    rule = RULES.get(operation.primitive)
    if rule is not None:
        try:
            rule(b, operation)
            return ""
        except Unsupported as error:
            reason = f": {error}"
    for out in operation.outs:  # later operations are looked at all the same
        b.values[id(out)] = Value("unsupported", natural(out.shape), out.batch)
    shapes = ", ".join(
        f"{x.dtype}[{','.join(map(str, x.shape))}]" for x in operation.ins
    )
    place = f" in {operation.scope}" if operation.scope else ""
    return f"{operation.primitive}({shapes}){place}{reason}"


def _input(b: Build, x: Tensor, name: str) -> Port:
    dtype = np.dtype(x.dtype)
    if dtype.name == "bfloat16":
        b.differences["arrays of bfloat16 are float32, which numpy knows"] = None
        dtype = np.dtype(np.float32)
    if x.dtype.name in ("float16", "bfloat16"):
        b.differences["16-bit floats are computed in float32"] = None
    for axis in x.batch:
        b.set_batch(name, axis, x.shape[axis])
    computed = carrier(dtype)
    b.define(x, name if computed == dtype else b.cast(name, computed), natural(x.shape))
    return Port(name, dtype, _lengths(b, x, x.batch))


def _output(b: Build, atom: Atom, name: str) -> Port:
    value, dtype = b.read(atom), np.dtype(atom.dtype)
    stored = full(b, value, atom.shape, natural(atom.shape))
    if dtype.name == "bfloat16":
        dtype = np.dtype(np.float32)
    if carrier(dtype) != dtype:
        stored = b.cast(stored, dtype)
    b.nodes.append(Node("Identity", (stored,), (name,), {}))
    return Port(name, dtype, _lengths(b, atom, value.batch))


def _lengths(b: Build, x: Atom, batch: frozenset[int]) -> list[int | str | None]:
    """Return lengths, "batch" for that of the batch, and None for others that grow."""
    return [
        n if a not in batch else "batch" if n == b.batch_length else None
        for a, n in enumerate(x.shape)
    ]
