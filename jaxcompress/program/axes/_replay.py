# SPDX-License-Identifier: Apache-2.0
"""Rerun a program on arrays that lost some of their channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from ..._mesh import struct_like
from ..trace import _compat, _compat_shapes
from ..trace._analyze import analyze
from ..trace._compat import Var
from ..trace._graph import Node, Region, Value
from ._axis import Axis
from ._derivative import derivative, floats, with_zeros
from ._kept import Kept, Mask
from ._link import AxisGraph


class Replay:
    """Evaluates a program whose axes lost some of their indices.

    Args:
      graph: axes of the program.
      kept: which indices are left.
      without: sums that return one of their operands, by its number.
    """

    def __init__(
        self, graph: AxisGraph, kept: Kept, without: Mapping[Node, int] | None = None
    ):
        self.graph = graph
        self.kept = kept
        self.without = without or {}

    def __call__(self, leaves: Sequence[Any]) -> Any:
        """Run the program on small leaves of the parameters and the arguments."""
        program = self.graph.program
        outs = self.run(program.root, leaves)
        outs = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in outs]
        return jax.tree.unflatten(program.out_tree, outs)

    def is_changed(self, value: Value) -> bool:
        """True if a value lost indices."""
        return not all(map(self.kept.is_whole, self.graph.of(value)))

    def shape(self, value: Value) -> tuple[int, ...]:
        """Return the new shape of a value."""
        return tuple(map(self.kept.size, self.graph.of(value)))

    def run(self, region: Region, args: Sequence[Any]) -> list[Any]:
        """Evaluate a region."""
        env = dict(zip(region.jaxpr.constvars, region.consts, strict=True))
        env.update(zip(region.jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Any:
            return env[atom] if isinstance(atom, Var) else atom.val

        for node in self._needed(region):
            # What is computed for an operand that goes is not there to be read.
            outs = (
                [read(node.eqn.invars[self.without[node]])]
                if node in self.without
                else self.step(node, [read(a) for a in node.eqn.invars])
            )
            env.update(zip(node.eqn.outvars, outs, strict=True))
        return [read(a) for a in region.jaxpr.outvars]

    def _needed(self, region: Region) -> Sequence[Node]:
        """Return the nodes of a region that its outputs still depend on."""
        if not self.without:
            return region.nodes
        needed: list[Node] = []
        wanted = {a for a in region.jaxpr.outvars if isinstance(a, Var)}
        for node in reversed(region.nodes):
            eqn = node.eqn
            if not eqn.effects and wanted.isdisjoint(eqn.outvars):
                continue
            needed.append(node)
            ins = (
                [eqn.invars[self.without[node]]] if node in self.without else eqn.invars
            )
            wanted.update(a for a in ins if isinstance(a, Var))
        return needed[::-1]

    def step(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        """Evaluate one node."""
        if not (self.without and node.bodies) and not any(
            map(self.is_changed, (*node.ins, *node.outs))
        ):
            return self._bind(node, node.eqn, operands)
        with _compat.in_scope(node.eqn):
            if node.primitive == "scan":
                return self._scan(node, operands)
            if node.primitive == "while":
                return self._while(node, operands)
            if node.primitive == "cond":
                return self._cond(node, operands)
            if not node.bodies:
                return self._bind(node, self._resized(node), operands)
            (body,) = node.bodies
            if body.home is body:
                fn = _compat.rematerialized(node.eqn, lambda *xs: self.run(body, xs))
                return fn(*operands)
            if node.primitive in _compat.CUSTOM_RULES:
                return self._custom(node, operands)
            return self.run(body, operands)

    def _bind(self, node: Node, eqn: Any, operands: list[Any]) -> Sequence[Any]:
        outs = _compat.operation(node.region.jaxpr, eqn)(*operands)
        return outs if eqn.primitive.multiple_results else [outs]

    def _resized(self, node: Node) -> Any:
        def mask(value: Value) -> Callable[[int], Mask]:
            return lambda i: self.kept.mask(self.graph.of(value)[i])

        return _compat_shapes.resized(
            node.eqn,
            [self.shape(v) for v in node.ins],
            [self.shape(v) for v in node.outs],
            mask(node.ins[0]) if node.ins else lambda i: self.kept.mask(Axis(1)),
            mask(node.outs[0]),
        )

    def _scan(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        consts = operands[: parts.consts]

        def trip(carry: Any, xs: Any) -> Any:
            outs = self.run(body, [*consts, *carry, *xs])
            return outs[: parts.carry], outs[parts.carry :]

        start, xs = operands[parts.consts : first], operands[first:]
        options = dict(parts.kwargs)
        if xs and "length" in options:  # layers of a stack may have been removed
            options["length"] = xs[0].shape[0]
            options["unroll"] = min(options.get("unroll", 1), xs[0].shape[0])
        carry, ys = lax.scan(trip, start, xs, **options)
        return [*carry, *ys]

    def _while(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        cond, _, cond_consts, body_consts = _compat.while_parts(node.eqn)
        (body,) = node.bodies
        condition, condition_consts = _compat.opened(cond)
        first = cond_consts + body_consts
        consts = operands[cond_consts:first]

        def unfinished(carry: Any) -> Any:
            args = [*operands[:cond_consts], *carry]
            # What the condition does not read may have lost indices.
            (flag,) = _compat.evaluate(condition, condition_consts, args)
            return flag

        return lax.while_loop(
            unfinished,
            lambda carry: self.run(body, [*consts, *carry]),
            operands[first:],
        )

    def _cond(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        index, *args = operands
        fns = [lambda *xs, body=body: self.run(body, xs) for body in node.bodies]
        return _compat.run_branch(node.eqn, index, fns, *args)

    def _custom(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        """Run a function with a custom derivative, whose rule is replayed too."""
        (body,) = node.bodies
        run = self.run
        rule = derivative(node)
        masks = [[self._masks(v) for v in vs] for vs in (node.ins, rule.moved)]
        structs = (
            [struct_like(v.aval) for v in node.ins],
            [struct_like(v.aval) for v in rule.moved],
        )
        small = replayed(rule.fn, structs, masks)
        if rule.forward:
            fn = jax.custom_jvp(lambda *xs: run(body, xs))

            def tangents(xs: Any, ts: Any) -> Any:
                results = run(body, xs)
                moved = small(list(xs), floats(ts, node.ins))
                return results, list(with_zeros(results, moved))

            fn.defjvp(tangents)
            return fn(*operands)
        fn = jax.custom_vjp(lambda *xs: run(body, xs))
        fn.defvjp(
            lambda *xs: (run(body, xs), xs),
            lambda xs, cts: with_zeros(xs, small(list(xs), floats(cts, node.outs))),
        )
        return fn(*operands)

    def _masks(self, value: Value) -> list[Mask]:
        return [self.kept.mask(axis) for axis in self.graph.of(value)]


def replayed(fn: Callable[..., Any], structs: Any, masks: Any) -> Callable[..., Any]:
    """Return a function of trees of arrays for arrays that lost some of their indices.

    Args:
      fn: ``(*trees) -> out`` at full shapes.
      structs: the full shapes of its arguments, a tuple of lists.
      masks: the kept indices of every axis of every array.
    """

    def small(*trees: Any) -> Any:
        program = analyze(lambda trees: fn(*trees), structs, ())
        graph = AxisGraph(program, outputs=False, derivatives=False)
        kept = Kept()
        listed = [m for tree in masks for m in tree]
        for axes, own in zip(graph.params, listed, strict=True):
            for axis, mask in zip(axes, own, strict=True):
                kept.set(axis, mask)
        return Replay(graph, kept)(jax.tree.leaves(trees))

    return small
