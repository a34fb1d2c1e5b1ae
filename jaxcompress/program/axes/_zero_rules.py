# SPDX-License-Identifier: Apache-2.0
"""Where the results of one operation are zero, given where its operands are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, Value
from ._axis import Axis, atoms, freeze
from ._link import AxisGraph
from ._rule import at
from ._signs import is_positive, pole
from ._zero_keeping import (
    FOLLOWS_FIRST,
    KEEPS_ZERO,
    MOVES,
    PRODUCTS,
    SUMS,
    WINDOWS,
    constant,
)

Zeros = frozenset[tuple[int, Axis]] | None
"""``(axis, atom)``: zero wherever an index along the axis is pruned; None: zero always."""

NOWHERE: Zeros = frozenset()


class Claims:
    """What is known of the values of a program where indices are pruned.

    Args:
      graph: axes of the program.

    Attributes:
      zeros: where values are zero.
      wild: atoms at whose pruned indices values may not be finite.
      notes: reductions over atoms that add nothing but zeros there.
      unsettled: number of loops around, whose carried claims may still weaken.
    """

    def __init__(self, graph: AxisGraph):
        self.graph = graph
        self.zeros: dict[Value, Zeros] = {}
        self.wild: dict[Value, frozenset[Axis]] = {}  # atoms where it may be infinite
        self.notes: dict[Axis, dict[str, None]] = {}
        self.unsettled = 0  # loops around, whose carried claims may still weaken

    def everywhere(self, value: Value) -> frozenset[tuple[int, Axis]]:
        """Return the claim that a value is zero at every pruned index."""
        axes = self.graph.of(value)
        return frozenset((i, a) for i, axis in enumerate(axes) for a in atoms(axis))

    def of(self, value: Value) -> Zeros:
        if value in self.zeros:
            return self.zeros[value]
        return None if constant(value) == 0 else NOWHERE

    def infinite(self, *values: Value) -> frozenset[Axis]:
        """Return the atoms at whose pruned indices a value may not be finite."""
        return frozenset().union(*(self.wild.get(v, ()) for v in values))

    def claim(self, value: Value, zeros: Zeros, wild: frozenset[Axis]) -> None:
        """Set what is known of a value."""
        if wild:
            self.wild[value] = wild
            claims = self.everywhere(value) if zeros is None else zeros
            zeros = frozenset((i, a) for i, a in claims if a not in wild)
        self.zeros[value] = zeros

    def follow(self, inner: Value, outer: Value, shift: int = 0) -> None:
        """Let a value know what another one does, with other leading axes."""
        zeros = self.of(outer)
        if zeros is not None:
            zeros = frozenset((i + shift, a) for i, a in zeros if i + shift >= 0)
        self.claim(inner, zeros, self.infinite(outer))

    def step(self, node: Node) -> None:
        name, ins = node.primitive, [self.of(v) for v in node.ins]
        outs: Sequence[Zeros] | None = None
        if name == "random_bits":
            for axis in self.graph.of(node.outs[0]):
                text = (
                    "other random numbers are drawn at another size; evaluation mode "
                    "draws none"
                )
                freeze(axis, at(node, text))
        if name == "dot_general":
            outs = [self.dot(node, *ins)]
        elif name == "conv_general_dilated":
            outs = [self.conv(node, *ins)]
        elif name in WINDOWS:
            outs = ins[: len(node.outs)]
        elif name.startswith("reduce_") and name != "reduce_precision":
            outs = self.reduce(node, ins)
        elif name in MOVES:
            outs = [self.moved(node, value) for value in node.outs]
        elif name in ("concatenate", "stack"):
            outs = [self.joined(node, ins)]
        elif name in KEEPS_ZERO:
            outs = [ins[0]]
        elif name == "optimization_barrier":
            outs = ins
        elif name in FOLLOWS_FIRST:
            outs = [_less(self.aligned(node, 0), self.aligned(node, 1))]
        elif name == "integer_pow":
            outs = [ins[0] if _compat_shapes.power(node.eqn) > 0 else NOWHERE]
        elif name in PRODUCTS:
            outs = [self.product(node)]
        elif name in SUMS:
            outs = [self.sum(node)]
        elif name == "select_n":
            outs = [self.all_of(node, range(1, len(ins)))]
        elif name == "clamp":
            low, high = constant(node.ins[0]), constant(node.ins[2])
            holds = low is not None and high is not None and low <= 0 <= high
            outs = [self.aligned(node, 1) if holds else NOWHERE]
        elif name == "dynamic_update_slice" or name.startswith("scatter"):
            outs = [self.updated(node)]
        cases = node.ins[1:] if name == "select_n" else node.ins
        wild = self.infinite(*cases) | self.poles(node)
        claims = [*(outs or ()), *[NOWHERE] * len(node.outs)]
        for value, zeros in zip(node.outs, claims, strict=False):
            self.claim(value, zeros, wild)

    def poles(self, node: Node) -> frozenset[Axis]:
        """Return the atoms at whose pruned indices a node may divide by zero."""
        value = pole(node)
        if value is None:
            return frozenset()
        within = {a for axis in self.graph.of(value) for a in atoms(axis)}

        def is_zero(atom: Axis) -> Callable[[Value], bool]:
            return lambda v: any(a is atom for _, a in self.of(v) or ())

        return frozenset(a for a in within if not is_positive(value, is_zero(a)))

    def aligned(self, node: Node, i: int) -> Zeros:
        """Return what an operand of an elementwise operation says of the result."""
        zeros = self.of(node.ins[i])
        if zeros is None:
            return None
        before, after = self.graph.of(node.ins[i]), self.graph.of(node.outs[0])
        if len(before) != len(after):
            return NOWHERE
        return frozenset(
            (j, a) for j, a in zeros if before[j].size == after[j].size != 1
        )

    def all_of(self, node: Node, operands: Sequence[int]) -> Zeros:
        """Return where all operands are zero."""
        parts = [self.aligned(node, i) for i in operands]
        claims = [part for part in parts if part is not None]
        return frozenset.intersection(*claims) if claims else None

    def product(self, node: Node) -> Zeros:
        parts = [self.aligned(node, i) for i in range(2)]
        if None in parts:
            return None
        return frozenset().union(*(part or () for part in parts))

    def sum(self, node: Node) -> Zeros:
        numbers = [constant(v) for v in node.ins]
        for i, number in enumerate(numbers):
            if number is None or len(numbers) != 2:
                continue
            # max(x, -1) and min(x, 6) keep the zeros of x.
            if (node.primitive == "max" and number <= 0) or (
                node.primitive == "min" and number >= 0
            ):
                return self.aligned(node, 1 - i)
        return self.all_of(node, range(len(node.ins)))

    def moved(self, node: Node, out: Value) -> Zeros:
        """Follow zeros through an operation that moves axes, by their atoms."""
        zeros = self.of(node.ins[0])
        if zeros is None:
            return None
        places: dict[Axis, list[int]] = {}
        for i, axis in enumerate(self.graph.of(node.ins[0])):
            for a in atoms(axis):
                places.setdefault(a, []).append(i)
        keeps = {a for a, axes in places.items() if all((i, a) in zeros for i in axes)}
        if node.primitive == "pad":
            if constant(node.ins[1]) != 0:
                return NOWHERE
            keeps |= {a for axis in self.graph.of(out) for a in atoms(axis)} - set(
                places
            )
        return frozenset(
            (i, a)
            for i, axis in enumerate(self.graph.of(out))
            for a in atoms(axis)
            if a in keeps
        )

    def joined(self, node: Node, ins: Sequence[Zeros]) -> Zeros:
        axis, _ = _compat.joined(node.eqn)
        stacked = node.primitive == "stack"
        claims = self.everywhere(node.outs[0])
        for value, zeros in zip(node.ins, ins, strict=True):
            if zeros is None:
                continue
            own = {(i + (stacked and i >= axis), a) for i, a in zeros}
            along = () if stacked else set(atoms(self.graph.of(value)[axis]))
            claims = {
                (i, a)
                for i, a in claims or ()
                if (i, a) in own or (i == axis and not stacked and a not in along)
            }
        return frozenset(claims or ())

    def updated(self, node: Node) -> Zeros:
        update = node.ins[1 if node.primitive == "dynamic_update_slice" else 2]
        ours, theirs = self.of(node.ins[0]), self.of(update)
        if theirs is None or ours is None:
            return ours if theirs is None else NOWHERE
        return (
            ours & theirs
            if len(update.aval.shape) == node.outs[0].aval.ndim
            else NOWHERE
        )

    def reduce(self, node: Node, ins: Sequence[Zeros]) -> Sequence[Zeros]:
        axes, zeros = _compat.reduced_axes(node.eqn), ins[0]
        operand = self.graph.of(node.ins[0])
        adds = node.primitive in ("reduce_sum", "reduce_or", "reduce_xor")
        for i in axes:
            for a in atoms(operand[i]):
                if not (adds and (zeros is None or (i, a) in zeros)):
                    self.refuse(node, a)
                self.notes.setdefault(a, {}).setdefault(at(node, "summed over"))
        if zeros is None:
            return [None] * len(node.outs)
        kept = [i for i in range(len(operand)) if i not in axes]
        place = {i: n for n, i in enumerate(kept)}
        result = frozenset((place[i], a) for i, a in zeros if i in place)
        return [result] * len(node.outs)

    def refuse(self, node: Node, atom: Axis) -> None:
        if self.unsettled:
            return
        text = "reduced where the values of pruned indices are not zero"
        freeze(atom, at(node, text))

    def contract(
        self,
        node: Node,
        left: Zeros,
        right: Zeros,
        pairs: Sequence[tuple[int, int]],
        ours: Callable[[Axis], bool] = lambda atom: True,
    ) -> None:
        """Check that a product adds zeros at the pruned indices of contracted axes."""
        wild = self.infinite(*node.ins)
        for i, j in pairs:
            for a in atoms(self.graph.of(node.ins[0])[i]):
                zero = left is None or right is None or (i, a) in left
                zero = (zero or (j, a) in (right or ())) and a not in wild
                if ours(a) and not zero:
                    self.refuse(node, a)

    def dot(self, node: Node, left: Zeros, right: Zeros) -> Zeros:
        axes = _compat.dot_axes(node.eqn)
        self.contract(node, left, right, list(zip(axes.lhs, axes.rhs, strict=True)))
        if left is None or right is None:
            return None
        ranks = [len(v.aval.shape) for v in node.ins]
        free = [i for i in range(ranks[0]) if i not in (*axes.lhs, *axes.lhs_batch)]
        other = [j for j in range(ranks[1]) if j not in (*axes.rhs, *axes.rhs_batch)]
        order = [*axes.lhs_batch, *free]
        lhs_at = {i: n for n, i in enumerate(order)}
        rhs_at = {j: n for n, j in enumerate(axes.rhs_batch)}
        rhs_at |= {j: n + len(order) for n, j in enumerate(other)}
        return frozenset(
            [(lhs_at[i], a) for i, a in left if i in lhs_at]
            + [(rhs_at[j], a) for j, a in right if j in rhs_at]
        )

    def conv(self, node: Node, left: Zeros, right: Zeros) -> Zeros:
        conv = _compat.convolution(node.eqn)
        features, inputs = conv.lhs_spec[1], conv.rhs_spec[1]
        summed = set(atoms(self.graph.of(node.ins[1])[inputs]))
        self.contract(node, left, right, [(features, inputs)], summed.__contains__)
        if left is None or right is None:
            return None
        batch, feature, *_ = _compat_shapes.result_axes(node.eqn)
        out = set(atoms(self.graph.of(node.outs[0])[feature]))
        zeros = [(batch, a) for i, a in left if i == conv.lhs_spec[0]]
        # Groups without channels are groups without results.
        zeros += [(feature, a) for i, a in left if i == features and a in out]
        zeros += [(feature, a) for i, a in right if i == conv.rhs_spec[0]]
        return frozenset(zeros)


def _less(a: Zeros, b: Zeros) -> Zeros:
    """Return a claim about a quotient: zero divided by zero is NaN."""
    if b is None:
        return NOWHERE
    return a if a is None else a - b
