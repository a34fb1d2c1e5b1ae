# SPDX-License-Identifier: Apache-2.0
"""Which values scale together if the channels of an axis are rescaled.

For one axis, every value gets an exponent: it is multiplied by ``s ** exponent`` along the
axis when its channels are rescaled by ``s``. Sums demand equal exponents, products add
them, a contraction needs exponents that cancel, and a ReLU keeps them. Whatever is not
positively homogeneous has exponent zero. The classes of values whose exponents are equal
or opposite, and not zero, are the rescalings that leave the function unchanged.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from ..trace import _compat, _compat_shapes
from ..trace._graph import Node, Value
from ._axis import Axis, atoms
from ._link import AxisGraph
from ._zero_keeping import IDENTITIES, MOVES, WINDOWS, constant

_LINEAR = MOVES | WINDOWS | IDENTITIES | {
    "abs", "convert_element_type", "neg", "optimization_barrier", "reduce_precision",
    "stop_gradient",
}  # fmt: skip
_SUMS = {
    "add", "add_any", "concatenate", "dynamic_update_slice", "max", "min", "select_n",
    "stack", "sub",
}  # fmt: skip
_CHANNEL_BY_CHANNEL = {
    "abs", "max", "min", "reduce_max", "reduce_min", "reduce_window_max",
    "reduce_window_min",
}  # fmt: skip
_COMPARISONS = {"eq", "ge", "gt", "le", "lt", "ne"}


@dataclasses.dataclass(eq=False)
class _Term:
    """An exponent, as a sign times that of its representative."""

    parent: _Term | None = None
    sign: int = 1


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Values that can be rescaled together along one axis.

    Attributes:
      atom: the axis.
      signs: the exponent of each value, 1 or -1; -1 for data, where there is any.
    """

    atom: Axis
    signs: Mapping[Value, tuple[int, ...]]


class Exponents:
    """Solves for the exponents of all values along one axis.

    Args:
      graph: axes of the program.
      nodes: the nodes of a region, in order.
      atom: the axis.
      weights: parameters of the region.
      fixed: values that must not change: inputs and outputs of the region.
      linear: find what can be rotated, too: nothing between is done channel by channel.
    """

    def __init__(
        self,
        graph: AxisGraph,
        nodes: Iterable[Node],
        atom: Axis,
        weights: Sequence[Value],
        fixed: Iterable[Value],
        *,
        linear: bool = False,
    ):
        self.linear = linear
        self.graph, self.atom = graph, atom
        self.weights = set(weights)
        self.zero = _Term()
        self.terms: dict[Value, _Term] = {}
        self.ports: list[tuple[Value, _Term]] = []
        self.products: list[tuple[Value, Value, Value]] = []
        for value in fixed:
            self.fix(value)
        for node in nodes:
            if any(map(self.places, (*node.ins, *node.outs))):
                self.step(node)
        self.settle()

    def places(self, value: Value) -> list[int]:
        """Return the axes of a value that contain the atom, once each time."""
        return [
            i
            for i, axis in enumerate(self.graph.of(value))
            for a in atoms(axis)
            if a is self.atom
        ]

    def term(self, value: Value) -> _Term:
        term = self.terms.get(value)
        if term is None:
            term = self.terms[value] = _Term()
            is_foreign = value.producer is None and value not in self.weights
            if len(self.places(value)) > 1 or is_foreign:
                self.join(term, self.zero)
        return term

    @staticmethod
    def root(term: _Term) -> tuple[_Term, int]:
        sign = 1
        while term.parent is not None:
            sign *= term.sign
            term = term.parent
        return term, sign

    def join(self, a: _Term, b: _Term, sign: int = 1) -> None:
        """Demand ``a == sign * b``."""
        (x, p), (y, q) = self.root(a), self.root(b)
        if x is y:
            if p * q * sign < 0 and x is not self.zero:
                x.parent = self.zero
            return
        if x is self.zero:
            x, y = y, x
        x.parent, x.sign = y, p * q * sign

    def fix(self, value: Value) -> None:
        if self.places(value):
            self.join(self.term(value), self.zero)

    def is_zero(self, value: Value) -> bool:
        return not self.places(value) or self.root(self.term(value))[0] is self.zero

    def step(self, node: Node) -> None:
        name, ins, outs = node.primitive, node.ins, node.outs
        touched = [v for v in ins if self.places(v)]
        if self.linear and self.is_by_channel(node):
            self.tie([], node)
        elif name in _LINEAR:
            padded = name == "pad" and constant(ins[1]) != 0
            mixed = padded or self.is_mixed(node)
            self.tie([] if mixed else [ins[0], *outs], node)
        elif name in _SUMS:
            cases = ins[1:] if name == "select_n" else ins
            if name == "dynamic_update_slice":
                cases = ins[:2]
            scales = all(self.places(v) or constant(v) == 0 for v in cases)
            self.tie([*cases, *outs] if scales else [], node)
        elif name in _COMPARISONS:
            scales = all(self.places(v) or constant(v) == 0 for v in ins)
            self.tie(touched if scales else [], node, skip=outs)
        elif name.startswith("reduce_"):
            axes = set(_compat.reduced_axes(node.eqn))
            keeps = name in ("reduce_sum", "reduce_max", "reduce_min")
            inside = axes & set(self.places(ins[0]))
            self.tie([ins[0], *outs] if keeps and not inside else [], node)
        elif name == "mul":
            self.multiply(ins[0], ins[1], outs[0])
        elif name == "div":
            self.fix(ins[1])
            self.tie([ins[0], outs[0]], node, skip=[ins[1]])
        elif name == "dot_general":
            self.dot(node)
        elif name == "conv_general_dilated":
            self.conv(node)
        else:
            self.tie([], node)

    def is_by_channel(self, node: Node) -> bool:
        """True if a node treats channels one by one, other than a linear map would."""
        name, touched = node.primitive, [v for v in node.ins if self.places(v)]
        if name in _CHANNEL_BY_CHANNEL or name in _COMPARISONS:
            return True
        if name == "select_n":
            return bool(self.places(node.ins[0]))
        if name == "mul":
            return len(touched) > 1
        if name == "div":
            return bool(self.places(node.ins[1]))
        if name == "dot_general" and len(touched) > 1:
            batch = _compat.dot_axes(node.eqn).lhs_batch
            return not set(batch).isdisjoint(self.places(node.ins[0]))
        if name == "conv_general_dilated" and len(touched) > 1:
            outputs = _compat.convolution(node.eqn).rhs_spec[0]
            return outputs in self.places(node.ins[1])
        return False

    def is_mixed(self, node: Node) -> bool:
        """True if a node that moves channels changes their order, or selects some."""
        before, name = self.places(node.ins[0]), node.primitive
        if name == "rev":
            return not _compat_shapes.ordered_axes(node.eqn).isdisjoint(before)
        if not before or any(self.places(v) for v in node.outs):
            return False
        # A slice of a concatenation leaves whole axes out.
        whole = {a for axis in self.graph.of(node.ins[0]) for a in atoms(axis)}
        left = {a for v in node.outs for axis in self.graph.of(v) for a in atoms(axis)}
        return name != "slice" or not left <= whole

    def tie(
        self, values: Sequence[Value], node: Node, skip: Sequence[Value] = ()
    ) -> None:
        """Demand equal exponents of values; fix every other value of a node."""
        touched = [v for v in values if self.places(v)]
        for value in touched[1:]:
            self.join(self.term(touched[0]), self.term(value))
        for value in (*node.ins, *node.outs):
            if value not in values and value not in skip:
                self.fix(value)

    def multiply(self, a: Value, b: Value, out: Value) -> None:
        touched = [v for v in (a, b) if self.places(v)]
        if len(touched) == 2:
            self.products.append((a, b, out))
            return
        for value in touched:
            self.join(self.term(value), self.term(out))

    def dot(self, node: Node) -> None:
        (lhs, rhs), (out,) = node.ins, node.outs
        axes = _compat.dot_axes(node.eqn)
        left, right = self.places(lhs), self.places(rhs)
        if left and right:
            (i, *_), (j, *_) = left, right
            if (i, j) in zip(axes.lhs, axes.rhs, strict=True):
                self.join(self.term(lhs), self.term(rhs), -1)
            elif (i, j) in zip(axes.lhs_batch, axes.rhs_batch, strict=True):
                self.multiply(lhs, rhs, out)
            else:
                self.tie([], node)
        else:
            self.tie([*node.ins, out], node)

    def conv(self, node: Node) -> None:
        (lhs, rhs), (out,) = node.ins, node.outs
        conv = _compat.convolution(node.eqn)
        features, inputs = conv.lhs_spec[1], conv.rhs_spec[1]
        left, right = self.places(lhs), self.places(rhs)
        if left and right:
            if left[0] == features and right == [inputs]:
                self.join(self.term(lhs), self.term(rhs), -1)
            elif left[0] == features and right == [conv.rhs_spec[0]]:
                self.multiply(lhs, rhs, out)  # one kernel for each channel
            else:
                self.tie([], node)
        else:
            self.tie([*node.ins, out], node)

    def settle(self) -> None:
        """Resolve the products of two values that may both scale."""
        waiting = self.products
        while waiting:
            left = [product for product in waiting if not self.resolve(*product)]
            if len(left) == len(waiting):
                divided = next((x for x in left if self.divide(*x)), None)
                if divided is None:
                    divided = left[-1]
                    for value in divided:
                        self.fix(value)
                left.remove(divided)
            waiting = left

    def resolve(self, a: Value, b: Value, out: Value) -> bool:
        """Resolve a product of which one value is known to be fixed, such as a gate."""
        zeros = [self.is_zero(v) for v in (a, b)]
        if any(zeros):
            self.join(self.term(b if zeros[0] else a), self.term(out))
        elif self.is_zero(out) and a is not b:
            self.join(self.term(a), self.term(b), -1)
        else:
            return False
        return True

    def divide(self, a: Value, b: Value, out: Value) -> bool:
        """Give the scale of a norm two exponents: for what it reads and what it makes."""
        data, weight = (a, b) if a.origin.data else (b, a)
        root = self.root(self.term(weight))[0]
        own = [v for v, term in self.terms.items() if self.root(term)[0] is root]
        if not data.origin.data or any(v.origin.data for v in own):
            return False
        taken, given = _Term(), _Term()
        self.join(self.term(data), taken, -1)
        self.join(self.term(out), given)
        for value in self.weights.intersection(own):
            self.ports += [(value, taken), (value, given)]
        self.join(root, self.zero)
        return True

    def scalings(self) -> list[Scaling]:
        """Return the classes of values with exponents that are not zero."""
        classes: dict[_Term, dict[Value, tuple[int, ...]]] = {}
        for value, term in [*self.terms.items(), *self.ports]:
            root, sign = self.root(term)
            if root is not self.zero:
                own = classes.setdefault(root, {})
                own[value] = (*own.get(value, ()), sign)
        return [Scaling(self.atom, self._oriented(own)) for own in classes.values()]

    def _oriented(
        self, signs: dict[Value, tuple[int, ...]]
    ) -> dict[Value, tuple[int, ...]]:
        data = [s[0] for value, s in signs.items() if value not in self.weights]
        flip = -data[0] if data else 1
        return {value: tuple(flip * s for s in own) for value, own in signs.items()}
