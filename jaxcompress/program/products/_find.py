# SPDX-License-Identifier: Apache-2.0
"""Find the sites of a program, and name them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator
from typing import Any

from ..._warn import warn
from ..trace import _compat
from ..trace._graph import Node, Program, Value, nodes, shape_of
from ._parts import parts
from ._site import Opaque, Site, opaque_lines

PRODUCTS = ("dot_general", "conv_general_dilated")


class OpaqueWarning(UserWarning):
    """A part of the program could not be entered and may contain products."""


class ClosedOverWarning(UserWarning):
    """The function multiplies by an array that is not among its parameters."""


@dataclasses.dataclass(frozen=True)
class SiteIndex:
    """The sites of a program by node, and the parts that were not entered."""

    sites: dict[Node, Site]
    opaque: list[Opaque]

    def warn(self, client: str) -> None:
        """Warn about the parts that a function of the library (``client``) skips."""
        if self.opaque:
            lines = "\n".join(opaque_lines(self.opaque))
            warn(
                f"{client} leaves these parts of the program unchanged:\n{lines}",
                OpaqueWarning,
            )


def find(program: Program) -> SiteIndex:
    """Find and name the sites of a program."""
    names: set[str] = set()
    sites: dict[Node, Site] = {}
    opaque: list[Opaque] = []
    closed_over: list[str] = []
    for node in nodes(program.root):
        if reason := _opaque(node):
            opaque.append(reason)
        if node.region.sealed:
            continue
        if node.primitive in PRODUCTS or _is_lookup(node):
            site = _make_site(program, node, names)
            sites[node] = site
            closed_over += _closed_over(node, site)
    if closed_over:
        warn(
            "the function multiplies by arrays that are not in `params`, so they have no "
            f"names and are not compressed: {'; '.join(closed_over)}. Pass them in "
            "`params`, or ignore this warning if they are constants.",
            ClosedOverWarning,
        )
    return SiteIndex(sites, opaque)


def _make_site(program: Program, node: Node, names: set[str]) -> Site:
    lhs, rhs = node.ins[:2]
    origins = [v.origin for v in (lhs, rhs)]
    leaves = [o.leaves if not o.data else frozenset() for o in origins]
    weight, leaf = None, None
    if any(leaves):
        main = program.main_leaf(leaves[0] | leaves[1])
        # If both come from one leaf (a Gram matrix of weights), take the right operand.
        weight = 1 if main in leaves[1] else 0
        leaf = program.paths[main]
    base = leaf or "/".join(filter(None, (node.scope, node.primitive)))
    # Count up to a free name, because a leaf may itself be called "w#1".
    numbered = (f"{base}#{i}" if i else base for i in itertools.count())
    name = next(n for n in numbered if n not in names)
    names.add(name)
    contraction, batch = _axes(node)
    leaf_contraction, leaf_outputs = None, None
    if weight is not None:
        trail = node.ins[weight].trail
        if trail is not None and trail.leaf == program.paths.index(leaf or ""):
            summed, shared = contraction[weight], batch[weight]
            taken = (*summed, *shared, *_looked_up(node))
            rest = [i for i in range(len(trail.axes)) if i not in taken]
            leaf_contraction = _sort_axes(trail.axes[i] for i in summed)
            leaf_outputs = _sort_axes(trail.axes[i] for i in rest)
    trips = [loop.trips for loop in node.region.loops]
    return Site(
        name=name,
        leaf=leaf,
        primitive=node.primitive,
        operands=(shape_of(lhs), shape_of(rhs)),
        result=shape_of(node.outs[0]),
        weight=weight,
        contraction=contraction,
        batch=batch,
        leaf_contraction=leaf_contraction,
        leaf_outputs=leaf_outputs,
        layers=tuple(x.trips or 0 for x in node.region.loops if x.layered),
        trips=None if None in trips else math.prod(t or 0 for t in trips),
        macs=_macs(node),
        parts=() if weight is None else _named_parts(program, node.ins[weight]),
    )


def _named_parts(program: Program, value: Value) -> tuple[tuple[str, float], ...]:
    found = parts(program, value)
    return tuple((program.paths[i], share) for i, share in found.items())


def _sort_axes(trails: Iterator[tuple[int, ...] | None]) -> tuple[int, ...] | None:
    """Return all axes in ascending order, or None if any are unknown."""
    groups = list(trails)
    if any(axes is None for axes in groups):
        return None
    return tuple(sorted(i for axes in groups for i in axes or ()))


Pair = tuple[tuple[int, ...], tuple[int, ...]]


def _axes(node: Node) -> tuple[Pair, Pair]:
    if node.primitive == "dot_general":
        axes = _compat.dot_axes(node.eqn)
        return (axes.lhs, axes.rhs), (axes.lhs_batch, axes.rhs_batch)
    if node.primitive == "gather":  # reads rows of a table, without contraction
        return ((), ()), ((), ())
    conv = _compat.convolution(node.eqn)
    return ((conv.lhs_spec[1],), conv.rhs_spec[1:]), ((), ())


def _macs(node: Node) -> int:
    if node.primitive == "gather":
        return 0
    size, rhs = math.prod(node.outs[0].aval.shape), node.ins[1].aval.shape
    if node.primitive == "dot_general":
        return size * math.prod(rhs[i] for i in _compat.dot_axes(node.eqn).rhs)
    conv = _compat.convolution(node.eqn)
    summed = math.prod(rhs[i] for i in conv.rhs_spec[1:])
    return size * summed // math.prod(conv.lhs_dilation)


def _is_lookup(node: Node) -> bool:
    """True if the node reads rows of a parameter table at indices that depend on data."""
    if node.primitive != "gather":
        return False
    table, index = node.ins
    return (
        bool(table.origin.leaves)
        and not table.origin.data
        and index.origin.data
        and len(table.aval.shape) >= 2
        and _compat.is_floating(table.aval)
    )


def _looked_up(node: Node) -> list[int]:
    """Return the axes of a table along which a look-up reads only a part."""
    if node.primitive != "gather":
        return []
    sizes = zip(_compat.slice_sizes(node.eqn), node.ins[0].aval.shape, strict=True)
    return [i for i, (taken, size) in enumerate(sizes) if taken != size]


def _closed_over(node: Node, site: Site) -> list[str]:
    def is_constant(value: Value) -> bool:
        origin = value.origin
        return origin.closed_over and not origin.leaves and len(value.aval.shape) >= 2

    return [
        f"{v.aval.str_short()} at {site.name!r}"
        for v in node.ins[:2]
        if is_constant(v) and _compat.is_floating(v.aval)
    ]


def _opaque(node: Node) -> Opaque | None:
    name = "/".join(filter(None, (node.scope, node.primitive)))
    if node.primitive in _compat.KERNELS:
        return Opaque(name, None, "a kernel")
    if node.region.sealed:
        return None  # already part of an opaque call
    if node.primitive == "while":
        count = _count_products(_compat.while_parts(node.eqn)[0])
        return Opaque(name, count, "in the condition of a loop") if count else None
    if node.bodies and not all(body.sealed for body in node.bodies):
        return None
    count = sum(map(_count_products, _compat.bodies(node.eqn)))
    if not count:
        return None
    if not node.bodies:
        return Opaque(name, count, "jaxcompress does not support this primitive")
    return Opaque(
        name,
        count,
        "it has a custom derivative rule, which a change would lose "
        "(inline_custom=True looks inside)",
    )


def _count_products(jaxpr: Any) -> int:
    jaxpr, _ = _compat.opened(jaxpr)
    return sum(
        (eqn.primitive.name in PRODUCTS)
        + sum(map(_count_products, _compat.bodies(eqn)))
        for eqn in jaxpr.eqns
    )
