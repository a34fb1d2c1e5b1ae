# SPDX-License-Identifier: Apache-2.0
"""Give every value of a program its axes."""

from __future__ import annotations

import jax

from ..._mesh import struct_like
from ..._select import paths_and_leaves
from ..trace import _compat
from ..trace._analyze import analyze
from ..trace._compat import Var
from ..trace._graph import Node, Program, Region, Value
from ._axis import Axis, freeze, frozen, unify
from ._derivative import Derivative, derivative
from ._rule import at
from ._rules import link
from ._vanish import steps_add

LOOPS = {"scan", "while", "cond"}


class AxisGraph:
    """The axes of every value of a program.

    Args:
      program: program from ``analyze``.
      outputs: freeze the axes of the results.
      derivatives: follow the axes through custom derivative rules, too.

    Attributes:
      params: axes of every parameter leaf.
      steps: the axis of the steps of every scan.
      rules: the programs of the custom derivative rules, by the node that has them.
    """

    def __init__(
        self, program: Program, *, outputs: bool = True, derivatives: bool = True
    ):
        self.program, self._derivatives = program, derivatives
        self.rules: dict[Node, tuple[Derivative, Program]] = {}
        self._axes: dict[Value, list[Axis]] = {}
        self.steps: dict[Node, Axis] = {}
        values, count = program.root.ins, len(program.paths)
        for value in values[:count]:
            self._axes[value] = [Axis(n) for n in value.aval.shape]
        for value, path in zip(values[count:], program.arguments, strict=True):
            # A vector among other arrays is a statistic more likely than a batch.
            is_state = len(value.aval.shape) == 1 and "/" in path
            hint = "; pass running statistics in params" if is_state else ""
            reason = f"an input of the network{hint} (argument {path})"
            self._axes[value] = [frozen(n, reason) for n in value.aval.shape]
        self._link_region(program.root)
        if outputs:
            for value in values[:count]:
                if not value.consumers:
                    for axis in self.of(value):
                        freeze(axis, "the function does not read this leaf")
            self._freeze_outputs()
        self.params = [self.of(value) for value in values[:count]]

    def _freeze_outputs(self) -> None:
        program = self.program

        def identity(path: str, value: Value) -> tuple[str, tuple[int, ...]]:
            return path.rpartition("/")[2], value.aval.shape

        known = set(map(identity, program.paths, program.root.ins))
        tree = jax.tree.unflatten(program.out_tree, program.root.outs)
        for path, value in zip(*paths_and_leaves(tree)[:2], strict=True):
            own = identity(path, value)
            # Named and shaped like a leaf: its next value.
            reason = (
                f"state that the function returns; trace it in evaluation mode ({path})"
                if own in known and not own[0].isdecimal()
                else "an output of the network"
            )
            for axis in self.of(value):
                freeze(axis, reason)

    def by_leaf(self) -> dict[tuple[str, int], Axis]:
        """Return every axis of every parameter leaf, by the path and the number."""
        pairs = zip(self.program.paths, self.params, strict=True)
        return {(path, i): axis for path, own in pairs for i, axis in enumerate(own)}

    def of(self, value: Value) -> list[Axis]:
        """Return the axes of a value."""
        axes = self._axes.get(value)
        if axes is None:
            reason = "meets an array that the function closes over"
            axes = self._axes[value] = [frozen(n, reason) for n in value.aval.shape]
        return axes

    def _link_region(self, region: Region) -> None:
        for node in region.nodes:
            if node.primitive in LOOPS:
                _LOOPS[node.primitive](self, node)
            elif node.bodies:
                for body in node.bodies:  # its values are the caller's own
                    self._link_region(body)
                if self._derivatives and node.primitive in _compat.CUSTOM_RULES:
                    self._derivative(node)
            else:
                results = link(node, [self.of(v) for v in node.ins])
                for value, axes in zip(node.outs, results, strict=False):
                    self._axes[value] = axes

    def _derivative(self, node: Node) -> None:
        rule = derivative(node)
        structs = [[struct_like(v.aval) for v in vs] for vs in (node.ins, rule.moved)]
        try:
            program = analyze(lambda trees: rule.fn(*trees), structs, ())
        except Exception:  # whatever a rule raises that refuses to be differentiated
            return
        self._derivatives = False  # of the first order only
        self.rules[node] = rule, program
        for inner, outer in zip(
            program.root.ins, (*node.ins, *rule.moved), strict=True
        ):
            self._axes[inner] = list(self.of(outer))
        self._link_region(program.root)
        for result, value in zip(program.root.outs, rule.results, strict=True):
            self._tie(node, result, value)
        self._derivatives = True

    def _tie(self, node: Node, a: Value, b: Value) -> None:
        reason = at(node, "axes that are divided in different ways meet here")
        for x, y in zip(self.of(a), self.of(b), strict=True):
            unify(x, y, reason)

    def _scan(self, node: Node) -> None:
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        # One axis for all: the layers of a stack, or the steps of a sequence.
        steps = self.steps[node] = Axis(parts.length)
        if not steps_add(node):
            freeze(steps, at(node, "the steps of a loop"))
        for inner, outer in zip(body.ins, node.ins, strict=True):
            axes = self.of(outer)
            stacked = len(axes) != len(inner.aval.shape)
            if stacked:
                unify(axes[0], steps, at(node, "the steps of a loop"))
            self._axes[inner] = list(axes[1:] if stacked else axes)
        self._link_region(body)
        for i, (inner, outer) in enumerate(zip(body.outs, node.outs, strict=True)):
            axes = self.of(inner)
            self._axes[outer] = [*([steps] if i >= parts.carry else []), *axes]
        for i in range(parts.consts, first):
            self._tie(node, body.ins[i], body.outs[i - parts.consts])

    def _while(self, node: Node) -> None:
        (body,) = node.bodies
        cond, _, cond_consts, _ = _compat.while_parts(node.eqn)
        outer = node.ins[cond_consts:]
        for inner, value in zip(body.ins, outer, strict=True):
            self._axes[inner] = list(self.of(value))
        self._link_region(body)
        carried = body.ins[len(body.ins) - len(body.outs) :]
        for inner, value, result in zip(body.outs, carried, node.outs, strict=True):
            self._tie(node, inner, value)
            self._axes[result] = list(self.of(inner))
        # The condition runs as it is, so what it reads keeps its shape.
        inner_jaxpr, _ = _compat.opened(cond)
        used = {a for eqn in inner_jaxpr.eqns for a in eqn.invars if isinstance(a, Var)}
        reads = [*node.ins[:cond_consts], *carried]
        for var, value in zip(inner_jaxpr.invars, reads, strict=True):
            if var in used:
                for axis in self.of(value):
                    freeze(axis, at(node, "read by the condition of a loop"))

    def _cond(self, node: Node) -> None:
        for body in node.bodies:
            for inner, outer in zip(body.ins, node.ins[1:], strict=True):
                self._axes[inner] = list(self.of(outer))
            self._link_region(body)
        for outs in zip(node.outs, *(body.outs for body in node.bodies), strict=True):
            self._axes[outs[0]] = list(self.of(outs[1]))
            for other in outs[2:]:
                self._tie(node, outs[1], other)


_LOOPS = {"scan": AxisGraph._scan, "while": AxisGraph._while, "cond": AxisGraph._cond}
