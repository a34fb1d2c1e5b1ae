# SPDX-License-Identifier: Apache-2.0
"""Boundaries: the values that an integer runtime stores as integers.

Such a runtime fuses a product with the bias, the folded normalization and the rectifier
after it, and stores the result. It stores both sides of a residual sum, and the sum. It
does not store the intermediate values of a normalization, a softmax or a smooth
activation.
"""

from __future__ import annotations

import dataclasses
import enum
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import jax

from ..._select import path_text
from ..products._find import SiteIndex
from ..products._site import Site
from ..trace._graph import Node, Program, Value, nodes, readers, shape_of
from ..trace._primitives import AFFINE, ELEMENTWISE, GATHERING, MOVES, SELECTING
from ._arguments import Arguments
from ._sources import (
    Sources,
    is_quantizable,
    is_rectifier,
    is_scaling,
    is_statistic,
    is_zero,
    reduces_batch,
)


class Boundary(enum.Enum):
    """The reason why an integer runtime stores a value."""

    INPUT = "an argument of the function"
    OPERAND = "an input of a product that was not stored before"
    PRODUCT = "the result of a product, with the operations fused into it"
    RESIDUAL = "a side or the result of a sum, product or concatenation of two values"
    OUTPUT = "a result of the function"

    @property
    def is_inside(self) -> bool:
        """True for values between the arguments and the results."""
        return self in (Boundary.PRODUCT, Boundary.RESIDUAL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A value that can be quantized; a policy decides by its attributes.

    Attributes:
      name: name of its site with ``/input``, ``/lhs``, ``/rhs`` or ``/output``, name of
        its sum (``"Block_0/add"``), or ``"input/..."`` and ``"output/..."``.
      boundary: why an integer runtime stores it.
      site: the product it belongs to; None if it belongs to no product.
      value: shape and dtype.
      layers: lengths of the enclosing scans over layers. Its range has these axes.
      made_by: name of the primitive that computes it, apart from what only moves elements;
        ``"softmax"`` for a softmax, and "" for an argument.
    """

    name: str
    boundary: Boundary
    site: Site | None
    value: jax.ShapeDtypeStruct
    layers: tuple[int, ...]
    made_by: str = ""


@dataclasses.dataclass(frozen=True)
class Marked:
    """A point and its place: a value for all readers, or one operand of a site."""

    point: Point
    value: Value
    node: Node | None = None  # the site, if only sites read the quantized value
    operand: int = 0

    @property
    def repeats(self) -> bool:
        """True in a loop that visits the same point often, unlike one over layers."""
        region = self.value.region if self.node is None else self.node.region
        return region is not None and not all(x.layered for x in region.loops)


class Boundaries:
    """The points of a program.

    Attributes:
      marks: all points with their places.

    Args:
      program: a traced program.
      index: sites of the program.
      accept: true for points that are quantized. Operands that lie on the grid of an
        accepted point are not points themselves.
    """

    def __init__(
        self, program: Program, index: SiteIndex, accept: Callable[[Point], bool]
    ):
        self.program, self.index, self.accept = program, index, accept
        self.sources = Sources(Arguments(program).biases)
        self.at: dict[Value, Marked] = {}  # points that all readers see
        self.rejected: set[Value] = set()
        self.names: Counter[str] = Counter()
        self.mark_values()
        self.marks: list[Marked] = [*self.at.values(), *self.mark_operands()]

    def grid(self, node: Node, operand: int) -> Marked | None:
        """Return the point whose grid an operand of a site lies on, or None."""
        for mark in self.marks:
            if mark.node is node and mark.operand == operand:
                return mark
        return self.stored(node.ins[operand])

    def mark_values(self) -> None:
        for path, value in self.arguments():
            self.mark(value, f"input/{path}", Boundary.INPUT)
        for node in nodes(self.program.root):
            if node in self.index.sites and not node.region.sealed:
                site = self.index.sites[node]
                if node.outs[0].origin.data:
                    end = self.fused(node.outs[0])
                    self.mark(end, f"{site.name}/output", Boundary.PRODUCT, site)
            elif not node.region.sealed and self.sources.is_join(node):
                name = self.numbered(
                    "/".join(filter(None, (node.scope, node.primitive)))
                )
                self.mark(self.fused(node.outs[0]), name, Boundary.RESIDUAL)
                for side, value in zip(_sides(node), node.ins, strict=True):
                    if value.origin.data and not self.stored(value):
                        self.mark(value, f"{name}/{side}", Boundary.RESIDUAL)
        for path, value in self.results():
            if not self.stored(value):
                self.mark(value, f"output/{path}", Boundary.OUTPUT)

    def mark_operands(self) -> Iterator[Marked]:
        """Yield operands that no point stores yet, once for all sites of a frame."""
        seen: dict[tuple[Value, int], Marked] = {}
        for node, site in self.index.sites.items():
            if node.primitive == "gather":
                continue
            for i, value in enumerate(node.ins[:2]):
                if not is_quantizable(value) or self.stored(value):
                    continue
                key = value, id(node.region.home)
                if key not in seen:
                    side = "input" if site.weight is not None else ("lhs", "rhs")[i]
                    point = self.point(
                        value, f"{site.name}/{side}", Boundary.OPERAND, site, node
                    )
                    if not self.accept(point):
                        continue
                    seen[key] = Marked(point, value, node, i)
                yield dataclasses.replace(seen[key], node=node, operand=i)

    def mark(
        self, value: Value, name: str, why: Boundary, site: Site | None = None
    ) -> None:
        if value in self.at or value in self.rejected or not is_quantizable(value):
            return
        point = self.point(value, name, why, site)
        if self.accept(point):
            self.at[value] = Marked(point, value)
        else:  # Remember it, so that it is not offered again under another name.
            self.rejected.add(value)

    def point(
        self,
        value: Value,
        name: str,
        why: Boundary,
        site: Site | None,
        node: Node | None = None,
    ) -> Point:
        region = value.region if node is None else node.region
        loops = region.loops if region else ()
        layers = tuple(x.trips or 0 for x in loops if x.layered)
        return Point(
            name=name,
            boundary=why,
            site=site,
            value=shape_of(value),
            layers=layers,
            made_by=_made_by(value),
        )

    def numbered(self, name: str) -> str:
        self.names[name] += 1
        count = self.names[name] - 1
        return f"{name}#{count}" if count else name

    def arguments(self) -> Iterator[tuple[str, Value]]:
        values = self.program.root.ins[len(self.program.paths) :]
        for path, value in zip(self.program.arguments, values, strict=True):
            if value.aval.shape:
                yield path, value

    def results(self) -> Iterator[tuple[str, Value]]:
        outs = self.program.root.outs
        tree = jax.tree.unflatten(self.program.out_tree, outs)
        for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
            # Losses and the running statistics of a batch norm are not activations.
            if value.aval.shape and not is_statistic(value):
                yield path_text(path) or "0", value

    def stored(self, value: Value) -> Marked | None:
        """Return the point whose grid a value already lies on, or None."""
        reader = None
        while value not in self.at:
            node = value.producer
            if node is None or not self.keeps_grid(node, reader):
                return None
            tensors = [v for v in node.ins if self.sources(v)]
            if len(tensors) != 1:
                return None
            (value,), reader = tensors, node
        return self.at[value]

    def keeps_grid(self, node: Node, reader: Node | None) -> bool:
        """True if the node's result lies on the grid of its operand."""
        if node.primitive == "pad":
            return is_zero(node.ins[1])
        if node.primitive in SELECTING or self.sources.is_mask(node):
            return True
        # Dropout scales the values it keeps, before or after masking; evaluation does not
        # scale. Both must share one grid, or training would have points that evaluation
        # does not have.
        neighbors = [v.producer for v in node.ins] + [reader]
        has_mask = any(
            other is not None and self.sources.is_mask(other) for other in neighbors
        )
        return is_rectifier(node, bound=0) or (is_scaling(node) and has_mask)

    def fused(self, value: Value) -> Value:
        """Return the last value that a runtime fuses with this one."""
        end = value
        while not any(value is out for out in self.program.root.outs):
            users = [n for n in readers(value) if not self.is_dead_end(n, value)]
            if len(users) != 1 or not self.is_fusable(users[0], value):
                break
            (value,) = users[0].outs
            if value.region and not value.region.sealed:
                end = value
        return end

    def is_fusable(self, node: Node, value: Value) -> bool:
        if node in self.sources.biases:  # A mask would widen the range of the scores.
            return False
        users = [reader for out in node.outs for reader in readers(out)]
        if is_scaling(node) and users and all(map(self.sources.is_mask, users)):
            return False
        if node.primitive in MOVES or is_rectifier(node):
            return True
        if node.primitive not in AFFINE:
            return False
        others = [v for v in node.ins if v is not value]
        return len(others) == 1 and (
            not others[0].origin.data or is_statistic(others[0])
        )

    def is_dead_end(self, node: Node, value: Value, depth: int = 8) -> bool:
        """True if a reader only computes statistics of a value, as a batch norm does."""
        if reduces_batch(node):
            return True
        if (
            depth == 0
            or node.primitive not in ELEMENTWISE | MOVES
            or len(node.outs) != 1
        ):
            return False
        others = [v for v in node.ins if v is not value]
        if any(v.origin.data and not is_statistic(v) for v in others):
            return False
        (out,) = node.outs
        users = list(readers(out))
        return bool(users) and all(self.is_dead_end(n, out, depth - 1) for n in users)


def _made_by(value: Value) -> str:
    """Return what computes a value: a primitive, or a softmax."""
    node = _maker(value)
    if node is None:
        return ""
    if node.primitive == "div":
        top, bottom = map(_maker, node.ins)
        if top is not None and bottom is not None:
            sums = bottom.primitive == "reduce_sum" and _maker(bottom.ins[0]) is top
            if top.primitive == "exp" and sums:
                return "softmax"
    return node.primitive


def _maker(value: Value) -> Node | None:
    while value.producer is not None and value.producer.primitive in MOVES:
        value = value.producer.ins[0]
    return value.producer


def _sides(node: Node) -> Sequence[str]:
    if node.primitive in GATHERING:
        return [str(i) for i in range(len(node.ins))]
    return ("lhs", "rhs")
