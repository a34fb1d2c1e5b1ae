# SPDX-License-Identifier: Apache-2.0
"""The leaves that a weight is made of, when a program joins several into one."""

from __future__ import annotations

from ..trace import _compat
from ..trace._graph import Node, Program, Value
from ..trace._primitives import ELEMENTWISE, GATHERING, MOVES

Window = tuple[int, range] | None
"""An axis and the only indices along it that count; None counts everything."""


def parts(program: Program, value: Value) -> dict[int, float]:
    """Return the leaves that lie side by side in a value, with their shares of it.

    What changes a leaf element by element, such as a mask or a scale, is not a part.

    Args:
      program: the program.
      value: a value that is computed from leaves alone.
    """
    return _Parts(program)(value)


class _Parts:
    def __init__(self, program: Program):
        self.program = program
        self.cache: dict[tuple[Value, Window], dict[int, float]] = {}

    def __call__(self, value: Value, window: Window = None) -> dict[int, float]:
        """Return the parts, with shares that sum to 1."""
        key = value, window
        if key not in self.cache:
            shares = self.find(value, window)
            total = sum(shares.values())
            self.cache[key] = {leaf: share / total for leaf, share in shares.items()}
        return self.cache[key]

    def find(self, value: Value, window: Window) -> dict[int, float]:
        """Return the parts, with any positive shares."""
        leaves, node = value.origin.leaves, value.producer
        if len(leaves) < 2:
            return dict.fromkeys(leaves, 1.0)
        if node is None and value.outer is not None:
            # A scan takes the layers apart, and every trip multiplies by another part.
            return self(value.outer)
        if node is not None and node.primitive in GATHERING:
            if shares := self.joined(node, window):
                return shares
        if node is not None and node.primitive == "slice":
            before, after = node.ins[0].aval.shape, value.aval.shape
            cut = [i for i, n in enumerate(before) if n != after[i]]
            one = (cut[0], _compat.window(node.eqn, cut[0])) if len(cut) == 1 else None
            return self(node.ins[0], one)
        if node is not None and node.primitive in ELEMENTWISE | MOVES:
            candidates = [self(v) for v in node.ins if v.origin.leaves]
            several = [shares for shares in candidates if len(shares) > 1]
            if several or len(candidates) == 1:
                return max(several or candidates, key=len)
        return {self.program.main_leaf(leaves): 1.0}

    def joined(self, node: Node, window: Window) -> dict[int, float]:
        """Return the parts of a concatenation, with the numbers of indices they take."""
        axis, places = _compat.joined(node.eqn)
        shares: dict[int, float] = {}
        for place in places:
            taken = place.size
            if window is not None and window[0] == axis:
                own = range(place.start, place.start + place.size)
                taken = sum(i in own for i in window[1])
            if taken:
                for i, share in self(node.ins[place.operand]).items():
                    shares[i] = shares.get(i, 0) + share * taken
        return shares
