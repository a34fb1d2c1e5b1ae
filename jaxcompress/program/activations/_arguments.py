# SPDX-License-Identifier: Apache-2.0
"""Arguments that are not activations: attention masks, and the state of norms.

The program shows which ones they are. A mask only ever meets scores as a bias of their
softmax. The state of a norm only ever meets data as a vector that is the same for the whole
batch, in arithmetic that is affine in the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from ..trace import _compat
from ..trace._graph import Node, Program, Value, nodes, readers
from ..trace._primitives import AFFINE, ELEMENTWISE, GATHERING, MOVES, SELECTING
from ..trace._trail import Trail, follow
from ._sources import is_statistic

_LOOPS = ("scan", "while", "cond")
_FOLLOWED = ELEMENTWISE | SELECTING | GATHERING | {"gather"}


class Arguments:
    """What is computed element by element from arguments alone, and who reads it.

    Attributes:
      trails: for each such value, the trail of every argument in it, by its index.
      biases: ``{node: operand}``: sums and products of scores before a softmax with an
        operand that is a constant, or computed from arguments alone.

    Args:
      program: a traced program.
    """

    def __init__(self, program: Program):
        self.program = program
        values = program.root.ins[len(program.paths) :]
        self.shapes = [v.aval.shape for v in values]
        self.trails: dict[Value, dict[int, Trail]] = {
            v: {i: Trail.start(i, v.aval.shape)}
            for i, v in enumerate(values)
            if v.origin.data
        }
        for node in nodes(program.root):
            self.derive(node)
        self.biases = dict(self.find_biases())

    def constants(self) -> frozenset[int]:
        """Return the arguments that are not activations, by their indices."""
        return frozenset(
            i
            for i, kinds in self.uses.items()
            if kinds - {"derived"} and "other" not in kinds
        )

    def doubtful(self) -> list[str]:
        """Return the paths of arguments that are used like the state of a norm, and not."""
        return [
            self.program.arguments[i]
            for i, kinds in self.uses.items()
            if {"state", "other"} <= kinds
        ]

    @functools.cached_property
    def uses(self) -> dict[int, set[str]]:
        """What the readers of each argument do with it, by its index."""
        uses: dict[int, set[str]] = {}
        results = {id(v) for v in self.program.root.outs}
        lost = {id(v) for n in nodes(self.program.root) for v in _leaving(n)}
        for value, trails in self.trails.items():
            for i in trails:
                kinds = uses.setdefault(i, set())
                kinds.update(self.use(node, value, i) for node in readers(value))
                kinds.update({"derived"} if id(value) in results else ())
                kinds.update({"other"} if id(value) in lost else ())
        return uses

    def derive(self, node: Node) -> None:
        """Continue the trails of the operands in the results, or in the bodies."""
        if node.primitive in _LOOPS:
            for outer, inner in _entries(node):
                if outer in self.trails:
                    scanned = inner.aval.shape != outer.aval.shape
                    self.trails[inner] = {
                        i: t.without_first_axis() if scanned else t
                        for i, t in self.trails[outer].items()
                    }
            for outer, out in _unchanged(node):
                if outer in self.trails:
                    self.trails[out] = self.trails[outer]
            return
        data = [v for v in node.ins if v.origin.data]
        if node.primitive not in _FOLLOWED or len(node.outs) != 1:
            return
        if not data or not all(v in self.trails for v in data):
            return
        trails: dict[int, Trail] = {}
        for i in {i for v in data for i in self.trails[v]}:
            own = [self.trails.get(v, {}).get(i) for v in node.ins]
            trail = follow(node.eqn, own, i)
            if trail is not None and not self.is_state(node, i):
                trails[i] = trail
        if trails:
            self.trails[node.outs[0]] = trails

    def use(self, node: Node, value: Value, i: int) -> str:
        """Return what a reader does with a value computed from an argument."""
        if node.primitive in _LOOPS:
            inside = [inner for outer, inner in _entries(node) if outer is value]
            return "derived" if len(inside) == _count(node, value) else "other"
        if any(i in self.trails.get(out, {}) for out in node.outs):
            return "derived"
        if node in self.biases and node.ins[self.biases[node]] is value:
            return "bias"
        if node.primitive == "select_n" and _count(node, value) == 1:
            fills = value is not node.ins[0]
            return "other" if fills and not feeds_softmax(node.outs[0]) else "mask"
        return "state" if self.is_state(node, i) else "other"

    def is_state(self, node: Node, i: int) -> bool:
        """True if a node combines data with an argument that is the state of a norm."""
        sides = [k for k, v in enumerate(node.ins) if i in self.trails.get(v, {})]
        if node.primitive not in AFFINE or len(sides) != 1:
            return False
        trail, other = self.trails[node.ins[sides[0]]][i], node.ins[1 - sides[0]]
        shape = self.shapes[i]
        sizes = [n for axis, n in enumerate(shape) if axis not in trail.layers]
        if not other.origin.data or sum(n != 1 for n in sizes) > 1:
            return False
        if is_statistic(other):  # a running average
            return True
        # One vector for the whole batch, which is the first axis.
        repeats = len(trail.axes) > 1 and trail.axes[0] == () and any(trail.axes)
        theirs = self.trails.get(other)
        return repeats and (
            theirs is None or any(t.axes[:1] != ((),) for t in theirs.values())
        )

    def find_biases(self) -> Iterator[tuple[Node, int]]:
        for node in nodes(self.program.root):
            if node.primitive not in ("add", "add_any", "sub", "mul"):
                continue
            for operand, (value, scores) in enumerate(
                zip(node.ins, reversed(node.ins), strict=True)
            ):
                if not scores.origin.data or scores in self.trails:
                    continue
                is_constant = node.primitive != "mul" and _has_constant(value)
                known = is_constant or value in self.trails
                subtracted = node.primitive == "sub" and operand == 0
                if known and not subtracted and feeds_softmax(node.outs[0]):
                    yield node, operand


def _has_constant(value: Value) -> bool:
    """True if a value is computed from a constant array, perhaps together with leaves."""
    pending, seen = [value], set()
    while pending:
        v = pending.pop()
        if v in seen or v.origin.data:
            continue
        seen.add(v)
        if not v.origin.leaves:
            if v.aval.shape:
                return True
        elif v.producer is not None and v.producer.primitive in _FOLLOWED:
            pending += v.producer.ins
    return False


def feeds_softmax(value: Value) -> bool:
    """True if a value reaches an exponential that is summed, up to shifts and scales."""
    for node, _ in _downstream(value, _keeps_scores):
        if node.primitive in ("exp", "exp2") and any(
            n.primitive == "reduce_sum"
            for n, _ in _downstream(node.outs[0], _keeps_weights)
        ):
            return True
    return False


def _keeps_scores(node: Node, value: Value) -> bool:
    if node.primitive == "select_n":
        return value is not node.ins[0]
    others = [v for v in node.ins if v is not value]
    constant = not any(v.origin.data for v in others)
    return (
        node.primitive in MOVES
        # The largest score is subtracted, and a further mask may be added.
        or node.primitive == "add"
        or (node.primitive == "sub" and value is node.ins[0])
        or (node.primitive in AFFINE | {"max", "min"} and constant)
    )


def _keeps_weights(node: Node, value: Value) -> bool:
    del value
    return node.primitive in MOVES | {"select_n", "mul"}


def _downstream(
    value: Value, keeps: Callable[[Node, Value], bool]
) -> Iterator[tuple[Node, Value]]:
    """Iterate over the readers of a value, and of what nodes that ``keep`` it return."""
    pending, seen = [value], set()
    while pending:
        v = pending.pop()
        if v in seen:
            continue
        seen.add(v)
        for node in readers(v):
            yield node, v
            if node.primitive in _LOOPS:
                pending += [inner for outer, inner in _entries(node) if outer is v]
            elif keeps(node, v):
                pending += node.outs


def _carried(node: Node) -> tuple[int, range]:
    """Return the first operand that enters a body, and which of its inputs it carries."""
    if node.primitive == "scan":
        parts = _compat.scan_parts(node.eqn)
        return 0, range(parts.consts, parts.consts + parts.carry)
    if node.primitive == "while":
        _, _, first, consts = _compat.while_parts(node.eqn)
        return first, range(consts, len(node.ins) - first)
    return 1, range(0)


def _entries(node: Node) -> Iterator[tuple[Value, Value]]:
    """Iterate over the values that enter a loop or branch, outside and inside.

    What the trips of a loop change is left out.
    """
    first, carried = _carried(node)
    for body in node.bodies:
        for i, (outer, inner) in enumerate(
            zip(node.ins[first:], body.ins, strict=True)
        ):
            if i not in carried or body.outs[i - carried.start] is inner:
                yield outer, inner


def _unchanged(node: Node) -> Iterator[tuple[Value, Value]]:
    """Iterate over what a loop carries and never changes, before and after."""
    first, carried = _carried(node)
    for place, out in zip(carried, node.outs, strict=False):
        (body,) = node.bodies
        if body.outs[place - carried.start] is body.ins[place]:
            yield node.ins[first + place], out


def _leaving(node: Node) -> Iterator[Value]:
    """Iterate over the results of the bodies of a loop or branch, if they are new."""
    if node.primitive not in _LOOPS:
        return
    _, carried = _carried(node)
    for body in node.bodies:
        for k, value in enumerate(body.outs):
            same = k < len(carried) and body.ins[carried[k]] is value
            if not same:
                yield value


def _count(node: Node, value: Value) -> int:
    bodies = len(node.bodies) if node.primitive == "cond" else 1
    return bodies * sum(v is value for v in node.ins)
