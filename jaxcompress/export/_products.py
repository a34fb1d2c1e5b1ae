# SPDX-License-Identifier: Apache-2.0
"""Which products of a graph an integer runtime computes on integers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from ..program.dataflow import Atom, Constant, Graph, Operation, Tensor

PRODUCTS = ("dot_general", "conv_general_dilated")
MOVES = {
    "broadcast_in_dim", "expand_dims", "reshape", "rev", "slice", "squeeze", "transpose",
}  # fmt: skip
_KEEPS_GRID = MOVES | {"reduce_max", "reduce_window_max"}
_FUSED = {"add", "add_any", "clamp", "max", "min"} | MOVES


def split(
    graph: Graph,
    *,
    outputs: Collection[str],
    rounds: bool = False,
    reason: Callable[[Operation], str],
) -> tuple[list[str], dict[str, str], int]:
    """Return the products on integers, the others with the reason, and how many are.

    Args:
      graph: the graph.
      outputs: primitives whose result must be quantized, too.
      rounds: whether products by integers round inputs that have no range.
      reason: why a runtime cannot run a product on integers; "" if it can.
    """
    makers = graph.makers()
    readers = graph.readers()
    integers: dict[str, None] = {}
    count = 0
    floats: dict[str, str] = {}
    for op in graph.operations:
        if op.primitive not in PRODUCTS:
            continue
        name = _name(op)
        why = _why_float(op, makers, rounds) or reason(op)
        needs_output = op.primitive in outputs and not rounds
        if not why and needs_output and not _is_stored(op, readers):
            why = "its result is not quantized"
        if why:
            floats[name] = why
        else:
            integers[name] = None
            count += 1
    # The trips of a loop, or the uses of a tied weight, share a name.
    return [name for name in integers if name not in floats], floats, count


def _name(op: Operation) -> str:
    leaf = next((x.leaf for x in op.ins if isinstance(x, Constant) and x.leaf), "")
    return leaf or f"{op.scope}/{op.primitive}".strip("/")


def _why_float(op: Operation, makers: Mapping[int, Operation], rounds: bool) -> str:
    weights = [x for x in op.ins[:2] if isinstance(x, Constant)]
    for x in weights:
        if x.codes is None:
            return "its weight is dense"
        if x.codes.format.bits > 8:
            return f"its weight has {x.codes.format.bits} bits"
        if sum(n > 1 for n in x.codes.scale.shape) > 1:
            return "its scales belong to groups"
    if rounds and weights:
        return ""
    data = [x for x in op.ins[:2] if not isinstance(x, Constant)]
    rounded = all(is_rounded(x, makers) for x in data)
    return "" if rounded else "its input is not quantized"


def origin(
    x: Atom, makers: Mapping[int, Operation], through: Collection[str] = MOVES
) -> Operation | None:
    """Return the operation that a value comes from, behind others that it passed through.

    Args:
      x: the value.
      makers: the operations of the graph; see ``Graph.makers``.
      through: primitives that are looked through, along their first operand.
    """
    while (op := makers.get(id(x))) is not None and op.primitive in through:
        x = op.ins[0]
    return op


def is_rounded(x: Atom, makers: Mapping[int, Operation]) -> bool:
    """True if a value was rounded, and has stayed on its grid since."""
    op = origin(x, makers, _KEEPS_GRID)
    return op is not None and op.primitive == "quantize"


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
