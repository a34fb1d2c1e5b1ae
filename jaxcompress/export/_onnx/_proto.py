# SPDX-License-Identifier: Apache-2.0
"""Nodes and arrays as an ONNX file: the only module that knows the package ``onnx``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from ._build import Node

_MAX_BYTES = 2**31 - 2**20


class Port(NamedTuple):
    """An input or output; a length is a number, a name, or None if it is unknown."""

    name: str
    dtype: np.dtype
    shape: Sequence[int | str | None]


def model(
    nodes: Sequence[Node],
    initializers: dict[str, np.ndarray],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    opset: int,
) -> Any:
    """Return an ``onnx.ModelProto`` with the nodes that an output depends on.

    Raises:
      ValueError: if it is larger than one file can be.
    """
    from onnx import helper

    nodes = _used(nodes, {port.name for port in outputs})
    read = {name for node in nodes for name in node.ins}
    arrays = {name: a for name, a in initializers.items() if name in read}
    size = sum(array.nbytes for array in arrays.values())
    if size > _MAX_BYTES:
        raise ValueError(
            f"the constants of the model take {size / 1e9:.1f} GB, and an ONNX file holds "
            "2 GB. Quantize it, or export it in parts."
        )
    graph = helper.make_graph(
        [_node(node) for node in nodes],
        "jaxcompress",
        [_info(port) for port in inputs],
        [_info(port) for port in outputs],
        [_tensor(name, array) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(
        graph,
        opset_imports=imports,
        producer_name="jaxcompress",
        ir_version=helper.find_min_ir_version_for(imports),
    )


def _used(nodes: Sequence[Node], wanted: set[str]) -> list[Node]:
    used = []
    for node in reversed(nodes):
        if wanted & set(node.outs):
            wanted = wanted | set(node.ins)
            used.append(node)
    return used[::-1]


def _node(node: Node) -> Any:
    from onnx import helper

    attributes: dict[str, Any] = {
        name: _element(value) if isinstance(value, np.dtype) else value
        for name, value in node.attributes.items()
    }
    # The names of values are unique, those of scopes are not: "...qhd" is one of einsum.
    made = helper.make_node(
        node.kind, node.ins, node.outs, name=node.outs[0], **attributes
    )
    made.doc_string = node.scope
    return made


def _element(dtype: np.dtype) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(dtype)


def _info(port: Port) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(port.name, _element(port.dtype), port.shape)


def _tensor(name: str, array: np.ndarray) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    if array.dtype in (ml_dtypes.int4, ml_dtypes.uint4):
        kind = TensorProto.INT4 if array.dtype == ml_dtypes.int4 else TensorProto.UINT4
        flat = array.astype(np.uint8).reshape(-1) & 15
        flat = np.concatenate([flat, np.zeros(len(flat) % 2, np.uint8)])
        packed = (flat[::2] | (flat[1::2] << 4)).tobytes()
        return helper.make_tensor(name, kind, array.shape, packed, raw=True)
    whole = np.ascontiguousarray(array).reshape(array.shape)
    return numpy_helper.from_array(whole, name)
