# SPDX-License-Identifier: Apache-2.0
"""The graph of a traced program: the origin and the readers of every value.

Calls (``jit``, ``remat``, custom derivatives) are transparent: an argument is the same
value inside and outside. Loops and branches have their own values.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from ..._select import is_weight
from . import _compat
from ._compat import Jaxpr, JaxprEqn, Var
from ._trail import Trail


class Origin(NamedTuple):
    """The inputs that a value depends on. If it depends on data, nothing else is kept."""

    data: bool = False
    leaves: frozenset[int] = frozenset()  # indices of parameter leaves in the tree
    closed_over: bool = False  # depends on arrays that are not arguments


DATA = Origin(data=True)
NOTHING = Origin()


def join(origins: Sequence[Origin]) -> Origin:
    """Return the origin of a value computed from values of these origins."""
    joined = NOTHING
    for origin in origins:
        if origin.data:
            return DATA
        if origin is not NOTHING and origin != joined:
            closed_over = joined.closed_over or origin.closed_over
            joined = Origin(False, joined.leaves | origin.leaves, closed_over)
    return joined


@dataclasses.dataclass(eq=False, slots=True)
class Value:
    """The value of one variable, in one place of the program."""

    aval: Any
    origin: Origin
    trail: Trail | None  # axes of the parameter it comes from; None for data
    producer: Node | None = None
    consumers: list[Node] = dataclasses.field(default_factory=list)
    region: Region | None = None  # with `var`, the place where a hook applies
    var: Var | None = None
    literal: Any = None  # the number, if the program contains it literally
    outer: Value | None = None  # what enters a loop or branch as this value at first


@dataclasses.dataclass(eq=False, slots=True)
class Node:
    """One equation, in one place of the program."""

    eqn: JaxprEqn
    region: Region
    scope: str  # full name stack
    ins: list[Value]
    outs: list[Value]
    bodies: list[Region]

    @property
    def primitive(self) -> str:
        """Name of the primitive."""
        return self.eqn.primitive.name


@dataclasses.dataclass(frozen=True)
class Loop:
    """A loop around a region.

    Attributes:
      trips: number of trips; None if known only at run time.
      layered: True if every trip has its own parameters, as in ``nn.scan`` over layers.
        State inside the loop then has an axis of that length.
    """

    trips: int | None
    layered: bool


@dataclasses.dataclass(eq=False, slots=True)
class Region:
    """The equations of one jaxpr, in one place of the program."""

    jaxpr: Jaxpr
    consts: list[Any]
    loops: tuple[Loop, ...]
    frame: Region | None  # innermost enclosing loop, branch or remat; None: itself
    sealed: bool  # inside a custom derivative, whose rule a change would lose
    hands_out: bool = True  # not inside a `while` or branch, so loops can stack values
    nodes: list[Node] = dataclasses.field(default_factory=list)
    ins: list[Value] = dataclasses.field(default_factory=list)
    outs: list[Value] = dataclasses.field(default_factory=list)

    @property
    def home(self) -> Region:
        """The frame it belongs to: one JAX function, with state passed in and out."""
        return self if self.frame is None else self.frame


@dataclasses.dataclass(eq=False)
class Program:
    """A traced function of ``(params, *args)``.

    Attributes:
      root: region of the whole program.
      paths: path texts of the parameter leaves.
      leaves: their shapes and dtypes.
      arguments: path texts of the leaves of the other arguments.
      out_tree: structure of the result.
      inline_custom: True if functions with custom derivatives were entered.
    """

    root: Region
    paths: list[str]
    leaves: list[Any]
    arguments: list[str]
    out_tree: Any
    inline_custom: bool

    def main_leaf(self, leaves: frozenset[int]) -> int:
        """Return the leaf that a product of several leaves is named after.

        This is the largest leaf. Among leaves of equal size (a weight and its mask), a
        leaf with the name of a weight wins, then a float.
        """

        def rank(i: int) -> tuple[int, bool, bool, int]:
            leaf = self.leaves[i]
            floating = _compat.is_floating(leaf)
            return leaf.size, is_weight(self.paths[i], leaf), floating, -i

        return max(leaves, key=rank)


def nodes(region: Region) -> Iterator[Node]:
    """Iterate over all nodes of a region and its inner regions, in order."""
    for node in region.nodes:
        yield node
        for body in node.bodies:
            yield from nodes(body)


def readers(value: Value) -> Iterator[Node]:
    """Iterate over the nodes that read a value, once each.

    Calls are skipped, because the nodes inside them are the readers.
    """
    seen = set()
    for node in value.consumers:
        is_call = bool(node.bodies) and node.primitive not in ("scan", "while", "cond")
        if not is_call and id(node) not in seen:
            seen.add(id(node))
            yield node


def shape_of(value: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and dtype of a value."""
    return jax.ShapeDtypeStruct(value.aval.shape, value.aval.dtype)
