# SPDX-License-Identifier: Apache-2.0
"""A function of data as operations, with everything else evaluated: what exporters read.

It has no calls, loops or branches, and no arithmetic on constants: what does not depend on
the inputs is a ``Constant``. Quantization is explicit: a ``quantize`` operation at every
quantized activation, and codes with scales in every quantized constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ...formats import Int


@dataclasses.dataclass(eq=False, slots=True)
class Tensor:
    """A value that depends on the inputs.

    Attributes:
      shape: its shape, for the example.
      dtype: its dtype.
      batch: axes whose length is that of the batch, if the batch may vary.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    batch: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, eq=False)
class Codes:
    """Integers on a scaled grid: ``value == (codes - zero_point) * scale``.

    Attributes:
      codes: integers of any shape, between ``format.low`` and ``format.high``.
      scale: float32 of the same rank; each axis has length 1 or that of ``codes``.
      zero_point: integers shaped like ``scale``; zeros for a symmetric format.
      format: the integer format.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    format: Int

    def dense(self) -> np.ndarray:
        """Return the float values."""
        steps = self.codes.astype(np.float32) - self.zero_point.astype(np.float32)
        return steps * self.scale.astype(np.float32)


@dataclasses.dataclass(eq=False, slots=True)
class Constant:
    """A value that does not depend on the inputs.

    Attributes:
      value: its value, also if it is quantized.
      codes: its codes, if it is quantized.
      leaf: path of the parameter that it is, or that it is computed from; "" for others.
        Arrays that the function closes over have the path ``CLOSED_OVER``.
    """

    value: np.ndarray
    codes: Codes | None = None
    leaf: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.value.shape

    @property
    def dtype(self) -> np.dtype:
        """Its dtype."""
        return self.value.dtype


Atom = Tensor | Constant


@dataclasses.dataclass(eq=False, slots=True)
class Operation:
    """One equation.

    Attributes:
      primitive: name of the JAX primitive, or "quantize". That has one operand and result,
        and rounds: ``scale * (clip(round(x / scale) + zero_point, low, high) -
        zero_point)``, with ``name`` (of the point), ``scale`` and ``zero_point`` (numpy
        scalars) and ``format`` (``Int``) as ``params``.
      params: parameters of the primitive, as in a jaxpr.
      ins: operands.
      outs: results.
      scope: where it stands in the model, for messages.
      bind: ``bind(*arrays) -> list of arrays`` evaluates it in JAX.
    """

    primitive: str
    params: dict[str, Any]
    ins: list[Atom]
    outs: list[Tensor]
    scope: str
    bind: Any = None


@dataclasses.dataclass(eq=False)
class Graph:
    """A function of data as a list of operations.

    Attributes:
      inputs: its arguments, flat.
      input_names: their names.
      operations: in an order in which they can run.
      outputs: its results, flat.
      output_names: their names.
    """

    inputs: list[Tensor]
    input_names: list[str]
    operations: list[Operation]
    outputs: list[Atom]
    output_names: list[str]

    def readers(self) -> dict[int, list[Operation]]:
        """Return the operations that read each tensor, by ``id`` of the tensor."""
        readers: dict[int, list[Operation]] = {}
        for operation in self.operations:
            for atom in operation.ins:
                if isinstance(atom, Tensor):
                    readers.setdefault(id(atom), []).append(operation)
        return readers

    def makers(self) -> dict[int, Operation]:
        """Return the operation that computes each tensor, by ``id`` of the tensor."""
        return {id(out): op for op in self.operations for out in op.outs}

    def points(self) -> Iterator[Operation]:
        """Iterate over the quantized activations."""
        return (op for op in self.operations if op.primitive == "quantize")
