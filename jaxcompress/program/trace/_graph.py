# SPDX-License-Identifier: Apache-2.0
"""A traced program as a graph: what every value is made of, and who reads it.

Calls are looked through (``jit``, ``remat``, custom derivatives): an argument inside is
the same value as outside. Loops and branches have values of their own.
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
    """What a value is computed from. Data absorbs: of a mixture nothing else is known."""

    data: bool = False
    leaves: frozenset[int] = frozenset()  # parameters, by their place in the tree
    closed_over: bool = False  # of arrays that are no argument


DATA = Origin(data=True)
NOTHING = Origin()


def join(origins: Sequence[Origin]) -> Origin:
    """The origin of what is computed from all of these."""
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
    """What one variable holds, in one place of the program."""

    aval: Any
    origin: Origin
    trail: Trail | None  # the way from a parameter to here; None for data
    producer: Node | None = None
    consumers: list[Node] = dataclasses.field(default_factory=list)
    region: Region | None = None  # with `var`: the place where a hook finds it
    var: Var | None = None
    literal: Any = None  # of what stands in the program as a number


@dataclasses.dataclass(eq=False, slots=True)
class Node:
    """One equation, in one place of the program."""

    eqn: JaxprEqn
    region: Region
    scope: str  # its full name stack
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
      trips: how often it runs; None where only the run can tell.
      layered: whether every trip has parameters of its own, as in ``nn.scan`` over
        layers; then state inside has an axis of that length.
    """

    trips: int | None
    layered: bool


@dataclasses.dataclass(eq=False, slots=True)
class Region:
    """The equations of one jaxpr, in one place of the program."""

    jaxpr: Jaxpr
    consts: list[Any]
    loops: tuple[Loop, ...]
    frame: Region | None  # innermost loop, branch or remat around; None: is one itself
    sealed: bool  # under a custom derivative, whose rule would be lost by a change
    hands_out: bool = True  # no `while` or branch is around it: values can be stacked
    nodes: list[Node] = dataclasses.field(default_factory=list)
    ins: list[Value] = dataclasses.field(default_factory=list)
    outs: list[Value] = dataclasses.field(default_factory=list)

    @property
    def home(self) -> Region:
        """The frame it belongs to: one function of JAX's, with state passed in and out."""
        return self if self.frame is None else self.frame


@dataclasses.dataclass(eq=False)
class Program:
    """A traced function of ``(params, *args)``.

    Attributes:
      root: the whole of it.
      paths: path texts of the parameter leaves.
      leaves: their shapes and dtypes.
      arguments: path texts of the leaves of the other arguments.
      out_tree: structure of the result.
    """

    root: Region
    paths: list[str]
    leaves: list[Any]
    arguments: list[str]
    out_tree: Any

    def main_leaf(self, leaves: frozenset[int]) -> int:
        """The one of several leaves that a product of them is named after.

        The largest, and among equals (a weight and its mask) one that is called like a
        weight, and a float.
        """

        def rank(i: int) -> tuple[int, bool, bool, int]:
            leaf = self.leaves[i]
            floating = _compat.is_floating(leaf)
            return leaf.size, is_weight(self.paths[i], leaf), floating, -i

        return max(leaves, key=rank)


def nodes(region: Region) -> Iterator[Node]:
    """All nodes of a region and of those inside, in order."""
    for node in region.nodes:
        yield node
        for body in node.bodies:
            yield from nodes(body)


def readers(value: Value) -> Iterator[Node]:
    """The nodes that read a value, once each; calls only stand around those."""
    seen = set()
    for node in value.consumers:
        is_call = bool(node.bodies) and node.primitive not in ("scan", "while", "cond")
        if not is_call and id(node) not in seen:
            seen.add(id(node))
            yield node


def shape_of(value: Any) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a value."""
    return jax.ShapeDtypeStruct(value.aval.shape, value.aval.dtype)
