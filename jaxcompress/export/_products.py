# SPDX-License-Identifier: Apache-2.0
"""Which products of a graph an integer runtime computes on integers."""

from __future__ import annotations

from collections.abc import Mapping

from ..program.dataflow import Constant, Graph, Operation, Tensor

PRODUCTS = ("dot_general", "conv_general_dilated")
MOVES = {
    "broadcast_in_dim", "expand_dims", "reshape", "rev", "slice", "squeeze", "transpose",
}  # fmt: skip
_FUSED = {"add", "add_any", "clamp", "max", "min"} | MOVES


def split(graph: Graph, *, outputs: bool) -> tuple[list[str], dict[str, str]]:
    """Return the products on integers, and the others with the reason, by name.

    Args:
      graph: the graph.
      outputs: whether the result must be quantized, too.
    """
    makers = {id(out): op for op in graph.operations for out in op.outs}
    readers = graph.readers()
    integers: list[str] = []
    floats: dict[str, str] = {}
    for op in graph.operations:
        if op.primitive not in PRODUCTS:
            continue
        name = _name(op, {*integers, *floats})
        reason = _why_float(op, makers, readers, outputs)
        if reason:
            floats[name] = reason
        else:
            integers.append(name)
    return integers, floats


def _name(op: Operation, taken: set[str]) -> str:
    leaf = next((x.leaf for x in op.ins if isinstance(x, Constant) and x.leaf), "")
    base = leaf or f"{op.scope}/{op.primitive}".strip("/")
    number = 1
    name = base
    while name in taken:
        number += 1
        name = f"{base}#{number}"
    return name


def _why_float(
    op: Operation,
    makers: Mapping[int, Operation],
    readers: Mapping[int, list[Operation]],
    outputs: bool,
) -> str:
    for x in op.ins[:2]:
        if isinstance(x, Constant):
            if x.codes is None:
                return "its weight is dense"
            if x.codes.format.bits > 8:
                return f"its weight has {x.codes.format.bits} bits"
            if sum(n > 1 for n in x.codes.scale.shape) > 1:
                return "its scales belong to groups"
        elif not _is_rounded(x, makers):
            return "its input is not quantized"
    if outputs and not _is_stored(op, readers):
        return "its result is not quantized"
    return ""


def _is_rounded(x: Tensor, makers: Mapping[int, Operation]) -> bool:
    """True if a value was rounded, and only moved since."""
    while (op := makers.get(id(x))) is not None:
        if op.primitive == "quantize":
            return True
        if op.primitive not in MOVES or not isinstance(op.ins[0], Tensor):
            return False
        x = op.ins[0]
    return False


def _is_stored(op: Operation, readers: Mapping[int, list[Operation]]) -> bool:
    """True if the result of a product, with what is fused into it, is rounded."""
    value = op.outs[0]
    while True:
        after = readers.get(id(value), [])
        if len(after) != 1:
            return bool(after) and all(r.primitive == "quantize" for r in after)
        (reader,) = after
        if reader.primitive == "quantize":
            return True
        others = [x for x in reader.ins if x is not value]
        if reader.primitive not in _FUSED or any(isinstance(x, Tensor) for x in others):
            return False
        value = reader.outs[0]
