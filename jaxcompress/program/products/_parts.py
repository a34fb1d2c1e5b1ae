# SPDX-License-Identifier: Apache-2.0
"""The leaves that a weight is made of, when a program joins several into one."""

from __future__ import annotations

from ..trace import _compat
from ..trace._graph import Program, Value
from ..trace._primitives import ELEMENTWISE, GATHERING, MOVES


def parts(program: Program, value: Value) -> dict[int, float]:
    """Return the leaves that lie side by side in a value, with their shares of it.

    What changes a leaf element by element, such as a mask or a scale, is not a part.

    Args:
      program: the program.
      value: a value that is computed from leaves alone.
    """
    weights = _parts(program, value, None)
    total = sum(weights.values())
    return {leaf: weight / total for leaf, weight in weights.items()}


def _parts(
    program: Program, value: Value, window: tuple[int, range] | None
) -> dict[int, float]:
    """Return the parts with any positive weights.

    Args:
      program: the program.
      value: the value.
      window: an axis and the only indices along it that count; None counts everything.
    """
    leaves, node = value.origin.leaves, value.producer
    if len(leaves) < 2:
        return dict.fromkeys(leaves, 1.0)
    if node is None and value.outer is not None:
        # A scan takes the layers apart, and every trip multiplies by another part.
        return _parts(program, value.outer, None)
    if node is not None and node.primitive in GATHERING:
        axis, places = _compat.joined(node.eqn)
        found: dict[int, float] = {}
        for place in places:
            taken = place.size
            if window is not None and window[0] == axis:
                own = range(place.start, place.start + place.size)
                taken = sum(i in own for i in window[1])
            if taken:
                for i, share in parts(program, node.ins[place.operand]).items():
                    found[i] = found.get(i, 0) + share * taken
        if found:
            return found
    if node is not None and node.primitive == "slice":
        (operand,), before = node.ins, node.ins[0].aval.shape
        cut = [i for i, n in enumerate(before) if n != value.aval.shape[i]]
        one = (cut[0], _compat.window(node.eqn, cut[0])) if len(cut) == 1 else None
        return _parts(program, operand, one)
    if node is not None and node.primitive in ELEMENTWISE | MOVES:
        candidates = [_parts(program, v, None) for v in node.ins if v.origin.leaves]
        several = [found for found in candidates if len(found) > 1]
        if several or len(candidates) == 1:
            return max(several or candidates, key=len)
    return {program.main_leaf(leaves): 1.0}
