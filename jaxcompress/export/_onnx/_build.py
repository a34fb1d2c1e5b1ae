# SPDX-License-Identifier: Apache-2.0
"""An ONNX graph that grows node by node; equal nodes and constants stand once."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import numpy as np

from ...program.dataflow import Constant, Graph, Operation, Tensor
from ._value import Value, constant

_CARRIERS = {
    "bfloat16": "float32",
    "float16": "float32",
    "int8": "int32",
    "uint8": "int32",
    "int16": "int32",
    "uint16": "int32",
    "uint32": "int64",
}
_WHOLE = ("bool", "float32", "float64", "int32", "int64")


class Unsupported(Exception):
    """Raised by a rule that cannot write an operation; its text is the reason."""


def carrier(dtype: np.dtype) -> np.dtype:
    """Return the dtype in which values are computed: one that runtimes have kernels for."""
    name = _CARRIERS.get(np.dtype(dtype).name, np.dtype(dtype).name)
    if name not in _WHOLE:
        raise Unsupported(f"values of dtype {dtype}")
    return np.dtype(name)


class Node(NamedTuple):
    """A node of the ONNX graph; a dtype among the attributes is an element type."""

    kind: str
    ins: tuple[str, ...]
    outs: tuple[str, ...]
    attributes: dict[str, Any]
    scope: str = ""


class Build:
    """Nodes, constants, and where the value of each tensor is.

    Attributes:
      opset: version of the operators.
      nodes: in order.
      initializers: constants by name.
      values: values of tensors, by ``id``.
      differences: where the model computes something else than the graph.
      producers: operation that computes each tensor, by ``id``.

    Args:
      graph: the graph.
      opset: version of the operators.
      names: names that are taken.
    """

    def __init__(self, graph: Graph, opset: int, names: set[str]):
        self.opset = opset
        self.nodes: list[Node] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.values: dict[int, Value] = {}
        self.differences: dict[str, None] = {}
        self.producers = {
            id(out): operation
            for operation in graph.operations
            for out in operation.outs
        }
        self.scope = ""
        self._nodes: dict[Any, tuple[str, ...]] = {}
        self._constants: dict[Any, str] = {}
        self._counts: dict[str, int] = {}
        self._batch: tuple[str, int, int] | None = None
        self._names = set(names)

    def fresh(self, base: str) -> str:
        """Return a name that is not used yet."""
        while True:
            number = self._counts[base] = self._counts.get(base, -1) + 1
            name = f"{base}_{number}"
            if name not in self._names:
                self._names.add(name)
                return name

    def node(self, kind: str, ins: list[str], **attributes: Any) -> str:
        """Add a node with one output, unless it is there, and return the output's name."""
        return self.node_with(kind, ins, 1, **attributes)[0]

    def node_with(
        self, kind: str, ins: list[str], outputs: int, **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node with several outputs."""
        key = (kind, tuple(ins), outputs, repr(sorted(attributes.items())))
        if key not in self._nodes:
            name = self.fresh(kind)
            outs = (name,)
            if outputs > 1:
                outs = tuple(f"{name}.{i}" for i in range(outputs))
            self.nodes.append(Node(kind, tuple(ins), outs, attributes, self.scope))
            self._nodes[key] = outs
        return self._nodes[key]

    def constant(self, array: np.ndarray, name: str = "constant") -> str:
        """Add a constant, unless it is there, and return its name."""
        array = np.asarray(array)
        data = hashlib.sha256(np.ascontiguousarray(array).view(np.uint8).data)
        key = (array.dtype.name, array.shape, data.digest())
        if key not in self._constants:
            self._constants[key] = name = self.fresh(name)
            self.initializers[name] = array
        return self._constants[key]

    def integers(self, values: Any) -> str:
        """Add a constant vector of int64."""
        return self.constant(np.asarray(list(values), np.int64))

    def number(self, value: float, dtype: np.dtype) -> str:
        """Add a constant scalar."""
        return self.constant(np.asarray(value, dtype))

    def cast(self, name: str, dtype: Any) -> str:
        """Add a cast."""
        return self.node("Cast", [name], to=np.dtype(dtype))

    def set_batch(self, name: str, axis: int, example: int) -> None:
        """Say which axis of which input has the length of the batch."""
        if self._batch is None:
            self._batch = (name, axis, example)

    @property
    def batch_length(self) -> int:
        """Length of the batch in the example; 0 if it is fixed."""
        return self._batch[2] if self._batch else 0

    def sizes(self, sizes: list[int], grow: list[bool]) -> str:
        """Add a vector of lengths, some of which grow with the batch."""
        if not any(grow):
            return self.integers(sizes)
        if self._batch is None:
            raise Unsupported("a length of the batch that no input has")
        name, axis, example = self._batch
        batch = self.node("Shape", [name], start=axis, end=axis + 1)
        parts = []
        for size, grows in zip(sizes, grow, strict=True):
            times = size // example
            if grows and size % example:
                raise Unsupported(f"a length of {size} is not a multiple of the batch")
            if not grows:
                parts.append(self.integers([size]))
            elif times == 1:
                parts.append(batch)
            else:
                parts.append(self.node("Mul", [batch, self.integers([times])]))
        return self.node("Concat", parts, axis=0)

    def read(self, atom: Tensor | Constant) -> Value:
        """Return where the value of an operand is."""
        if isinstance(atom, Tensor):
            return self.values[id(atom)]
        if atom.codes is not None:
            from ._codes import dequantized

            return Value(dequantized(self, atom), tuple(range(len(atom.shape))))
        return constant(np.asarray(atom.value, carrier(atom.dtype)))

    def define(self, out: Tensor, name: str, order: Any, grid: Any = None) -> None:
        """Set where the value of a result is."""
        self.values[id(out)] = Value(name, tuple(order), out.batch, grid=grid)

    def rounded(self, name: str, grid: tuple[str, str] | None) -> str:
        """Round values again that lie on a grid.

        It changes none of them. Runtimes look for codes directly before a product, and
        move codes instead of floats if they find them on both sides of a move.
        """
        if grid is None:
            return name
        codes = self.node("QuantizeLinear", [name, *grid])
        return self.node("DequantizeLinear", [codes, *grid])

    def produced_by(self, atom: Tensor | Constant) -> Operation | None:
        """Return the operation that computes a value."""
        return self.producers.get(id(atom))


def length(shape: tuple[int, ...], axes: Any) -> int:
    """Return the number of elements along some axes."""
    return math.prod(shape[axis] for axis in axes)
