# SPDX-License-Identifier: Apache-2.0
"""A function of data as a flat list of operations: what exporters read."""

from ._dataflow import Dataflow, dataflow
from ._flatten import CLOSED_OVER, Unsupported
from ._graph import Atom, Codes, Constant, Graph, Operation, Tensor

__all__ = [
    "CLOSED_OVER",
    "Atom",
    "Codes",
    "Constant",
    "Dataflow",
    "Graph",
    "Operation",
    "Tensor",
    "Unsupported",
    "dataflow",
]
