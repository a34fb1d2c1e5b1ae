# SPDX-License-Identifier: Apache-2.0
"""Trace a function and determine the origin of each of its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

from ..._select import paths_and_leaves
from . import _compat
from ._compat import Literal, Var
from ._graph import DATA, NOTHING, Loop, Node, Origin, Program, Region, Value, join
from ._trail import Trail, follow


def analyze(
    fn: Callable[..., Any],
    params: Any,
    args: Sequence[Any],
    *,
    inline_custom: bool = False,
) -> Program:
    """Trace a function and determine the origin of each of its values.

    Args:
      fn: ``(params, *args) -> out``.
      params: tree of arrays, tracers or shapes.
      args: trees of arrays, tracers or shapes.
      inline_custom: enter functions with custom derivatives as if they had none.
    """
    traced = _compat.trace(fn, params, *args)
    paths, _, _ = paths_and_leaves(params)
    avals: list[Any] = [v.aval for v in traced.jaxpr.invars]
    arguments, _, _ = paths_and_leaves(tuple(args))
    leaves = avals[: len(paths)]
    root = _root(traced.jaxpr, traced.consts)
    return _filled(
        Program(root, paths, leaves, arguments, traced.out_tree, inline_custom)
    )


def with_constants(program: Program, constants: Collection[int]) -> Program:
    """Analyze a program again, with some of its arguments as constants.

    Args:
      program: a program from ``analyze``.
      constants: indices of leaves of the arguments after the parameters.
    """
    root = _root(program.root.jaxpr, program.root.consts)
    return _filled(dataclasses.replace(program, root=root), constants)


def _root(jaxpr: Any, consts: list[Any]) -> Region:
    return Region(jaxpr, consts, (), None, sealed=False)


def _filled(program: Program, constants: Collection[int] = ()) -> Program:
    """Add the equations of a program to its graph."""
    count = len(program.paths)

    def value(i: int, aval: Any) -> Value:
        if i < count:
            origin = Origin(False, frozenset([i]))
            return Value(aval, origin, Trail.start(i, aval.shape))
        return Value(aval, NOTHING if i - count in constants else DATA, None)

    values = [value(i, v.aval) for i, v in enumerate(program.root.jaxpr.invars)]
    _Builder(program).fill(program.root, values, "")
    return program


class _Builder:
    def __init__(self, program: Program):
        self.program = program
        self.inlined = _compat.INLINED | (
            _compat.CUSTOM_RULES if program.inline_custom else set()
        )

    def fill(self, region: Region, ins: list[Value], scope: str) -> Region:
        """Add the equations of a region to the graph, given the values of its arguments."""
        jaxpr = region.jaxpr
        env: dict[Var, Value] = {}
        # A nested jitted function may close over arrays.
        origin = Origin(closed_over=True)
        consts = [Value(v.aval, origin, None) for v in jaxpr.constvars]
        for var, value in zip(
            (*jaxpr.constvars, *jaxpr.invars), (*consts, *ins), strict=True
        ):
            env[var] = value
            if value.region is None:
                value.region, value.var = region, var
        region.ins = ins

        def read(atom: Any) -> Value:
            if isinstance(atom, Literal):
                return Value(atom.aval, NOTHING, None, literal=atom.val)
            return env[atom]

        for eqn in jaxpr.eqns:
            full_scope = _join_scopes(scope, _compat.scope(eqn))
            operands = [read(a) for a in eqn.invars]
            node = Node(eqn, region, full_scope, operands, [], [])
            region.nodes.append(node)
            self.step(node)
            for var, value in zip(eqn.outvars, node.outs, strict=True):
                env[var] = value
                if value.region is None or (value.region.sealed and not region.sealed):
                    value.region, value.var = region, var
            for value in operands:
                value.consumers.append(node)
        region.outs = [read(a) for a in jaxpr.outvars]
        return region

    def step(self, node: Node) -> None:
        """Fill in the results of a node, and its bodies if the primitive is supported."""
        name = node.primitive
        if name in self.inlined:
            self.call(node, frame=node.region.home, sealed=node.region.sealed)
        elif name in _compat.REMATERIALIZED:
            self.call(node, frame=None, sealed=node.region.sealed)
        elif name in _compat.CUSTOM_RULES:
            self.call(node, frame=node.region.home, sealed=True)
        elif name == "scan":
            self.scan(node)
        elif name == "while":
            self.while_loop(node)
        elif name == "cond":
            self.cond(node)
        else:
            origin = join([v.origin for v in node.ins])
            self.results(node, [origin] * len(node.eqn.outvars))
            if not origin.data and origin.leaves and len(node.outs) == 1:
                trails = [v.trail for v in node.ins]
                node.outs[0].trail = follow(
                    node.eqn, trails, self.program.main_leaf(origin.leaves)
                )

    def results(self, node: Node, origins: Sequence[Origin]) -> None:
        node.outs = [
            Value(v.aval, origin, None, node)
            for v, origin in zip(node.eqn.outvars, origins, strict=True)
        ]

    def call(self, node: Node, *, frame: Region | None, sealed: bool) -> None:
        """Enter a call, whose arguments and results are the caller's own values."""
        bodies = _compat.bodies(node.eqn)
        if len(bodies) != 1:
            self.results(
                node, [join([v.origin for v in node.ins])] * len(node.eqn.outvars)
            )
            return
        jaxpr, consts = _compat.opened(bodies[0])
        inner = Region(
            jaxpr, consts, node.region.loops, frame, sealed, node.region.hands_out
        )
        self.fill(inner, node.ins, node.scope)
        node.bodies, node.outs = [inner], inner.outs

    def scan(self, node: Node) -> None:
        (body,) = _compat.bodies(node.eqn)
        parts = _compat.scan_parts(node.eqn)
        jaxpr, consts = _compat.opened(body)
        first = parts.consts + parts.carry
        layered = any(v.origin.leaves and not v.origin.data for v in node.ins[first:])
        loops = (*node.region.loops, Loop(parts.length, layered))
        origins = [v.origin for v in node.ins]
        trails = [v.trail for v in node.ins]
        trails[parts.consts : first] = [None] * parts.carry
        trails[first:] = [t and t.without_first_axis() for t in trails[first:]]

        def build(carried: list[Origin]) -> Region:
            in_origins = [*origins[: parts.consts], *carried, *origins[first:]]
            ins = [
                Value(v.aval, origin, None if origin.data else trail, outer=outer)
                for v, origin, trail, outer in zip(
                    jaxpr.invars, in_origins, trails, node.ins, strict=True
                )
            ]
            region = Region(
                jaxpr, consts, loops, None, node.region.sealed, node.region.hands_out
            )
            return self.fill(region, ins, node.scope)

        node.bodies = [self.settle(build, origins[parts.consts : first], parts.carry)]
        self.results(node, [v.origin for v in node.bodies[0].outs])
        for out, inner in zip(
            node.outs[parts.carry :], node.bodies[0].outs[parts.carry :], strict=True
        ):
            out.trail = inner.trail and inner.trail.with_first_axis()

    def while_loop(self, node: Node) -> None:
        _, body, cond_consts, body_consts = _compat.while_parts(node.eqn)
        jaxpr, consts = _compat.opened(body)
        first = cond_consts + body_consts
        loops = (*node.region.loops, Loop(None, layered=False))
        const_values = node.ins[cond_consts:first]

        def build(carried: list[Origin]) -> Region:
            origins = [*(v.origin for v in const_values), *carried]
            trails = [*(v.trail for v in const_values), *[None] * len(carried)]
            ins = [
                Value(v.aval, origin, None if origin.data else trail, outer=outer)
                for v, origin, trail, outer in zip(
                    jaxpr.invars, origins, trails, node.ins[cond_consts:], strict=True
                )
            ]
            region = Region(jaxpr, consts, loops, None, node.region.sealed, False)
            return self.fill(region, ins, node.scope)

        carried = [v.origin for v in node.ins[first:]]
        node.bodies = [self.settle(build, carried, len(carried))]
        self.results(node, [v.origin for v in node.bodies[0].outs])

    def settle(
        self,
        build: Callable[[list[Origin]], Region],
        carried: list[Origin],
        count: int,
    ) -> Region:
        """Rebuild a loop's body until the origins of its carry reach a fixed point."""
        while True:
            region = build(carried)
            outs = [v.origin for v in region.outs[:count]]
            joined = [join(pair) for pair in zip(carried, outs, strict=True)]
            if joined == carried:
                return region
            carried = joined

    def cond(self, node: Node) -> None:
        operands = node.ins[1:]
        for branch in _compat.branches(node.eqn):
            jaxpr, consts = _compat.opened(branch)
            loops, sealed = node.region.loops, node.region.sealed
            region = Region(jaxpr, consts, loops, None, sealed, False)
            ins = [Value(v.aval, v.origin, v.trail, outer=v) for v in operands]
            node.bodies.append(self.fill(region, ins, node.scope))
        index = node.ins[0].origin
        outs = zip(*(region.outs for region in node.bodies), strict=True)
        self.results(node, [join([index, *(v.origin for v in vs)]) for vs in outs])


def _join_scopes(outer: str, inner: str) -> str:
    return f"{outer}/{inner}" if outer and inner else outer or inner
