# SPDX-License-Identifier: Apache-2.0
"""Run a program again, changed at some of its equations and values.

Equations that nothing is changed at run as they are, in one piece, through JAX's own
evaluator: their derivative rules, random bits, effects and shardings are not touched.
Loops and branches with a change inside are built anew, with state threaded through.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from . import _compat
from ._compat import Literal, Var
from ._graph import Node, Program, Region, Value

State = dict[str, Any]
"""For each name what belongs to it: any pytree of arrays."""


@dataclasses.dataclass
class Frame:
    """What the hooks of one loop body, branch or program share while it is traced.

    Attributes:
      state: by name; a hook reads and replaces what its own names stand for.
      given: by name; what hooks read and nobody replaces.
      emitted: by name; what a hook wants to see outside. Loops stack it.
      kept: scratch, by anything; gone at the end of the frame.
    """

    state: State
    given: State = dataclasses.field(default_factory=dict)
    emitted: dict[str, Any] = dataclasses.field(default_factory=dict)
    kept: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NodeHook:
    """Replaces an equation.

    Attributes:
      names: of the state it reads or writes.
      run: ``(op, operands, frame) -> result``; ``op(*operands)`` is the equation.
    """

    names: tuple[str, ...]
    run: Callable[[Callable[..., Any], list[Any], Frame], Any]


@dataclasses.dataclass(frozen=True)
class ValueHook:
    """Replaces a value for everyone who reads it.

    Attributes:
      names: of the state it reads or writes.
      run: ``(x, frame) -> x``.
    """

    names: tuple[str, ...]
    run: Callable[[Any, Frame], Any]


class Interpreter:
    """Evaluates a program with hooks.

    Args:
      program: what ``analyze`` made.
      nodes: what happens instead of an equation.
      values: what happens to a value once it is there.
    """

    def __init__(
        self,
        program: Program,
        nodes: Mapping[Node, NodeHook],
        values: Mapping[Value, ValueHook] | None = None,
    ):
        self.program = program
        self.node_hooks = nodes
        self.value_hooks: dict[tuple[int, Var], list[ValueHook]] = {}
        for value, hook in (values or {}).items():
            place = (id(value.region), value.var)
            self.value_hooks.setdefault(place, []).append(hook)  # pyright: ignore[reportArgumentType]
        self.names: dict[int, tuple[str, ...]] = {}
        self._name(program.root)

    def __call__(
        self, leaves: Sequence[Any], state: State, given: State | None = None
    ) -> tuple[Any, State, dict[str, Any]]:
        """Run it.

        Args:
          leaves: of the parameters and the arguments.
          state: of all names.
          given: what hooks only read, by name. Like state it has an axis for every loop
            over layers around its hook.

        Returns:
          The function's result, the new state, and what was emitted.
        """
        frame = Frame(dict(state), dict(given or {}))
        outs = self.run(self.program.root, list(leaves), frame)
        # A constant that the function returns is not yet an array.
        outs = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in outs]
        out = jax.tree.unflatten(self.program.out_tree, outs)
        return out, frame.state, frame.emitted

    def _name(self, region: Region) -> tuple[str, ...]:
        """Which names are read or written inside a region; none: it runs as it is."""
        found: dict[str, None] = {}
        here = id(region)
        variables = [*region.jaxpr.constvars, *region.jaxpr.invars]
        for node in region.nodes:
            variables += node.eqn.outvars
            if node in self.node_hooks:
                found.update((n, None) for n in self.node_hooks[node].names)
            for body in node.bodies:
                found.update((n, None) for n in self._name(body))
        for var in variables:
            for hook in self.value_hooks.get((here, var), ()):
                found.update((n, None) for n in hook.names)
        self.names[here] = tuple(found)
        return self.names[here]

    def _is_touched(self, node: Node) -> bool:
        return (
            node in self.node_hooks
            or any(self.names[id(body)] for body in node.bodies)
            or any((id(node.region), v) in self.value_hooks for v in node.eqn.outvars)
        )

    def run(self, region: Region, args: Sequence[Any], frame: Frame) -> list[Any]:
        """Evaluate a region, in the frame it belongs to."""
        jaxpr, env = region.jaxpr, {}

        def write(var: Var, x: Any) -> None:
            for hook in self.value_hooks.get((id(region), var), ()):
                x = hook.run(x, frame)
            env[var] = x

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else env[atom]

        for var, x in zip(jaxpr.constvars, region.consts, strict=True):
            write(var, x)
        for var, x in zip(jaxpr.invars, args, strict=True):
            write(var, x)
        for nodes, needed in self._pieces(region):
            first = nodes[0]
            if needed is None:
                operands = [read(a) for a in first.eqn.invars]
                if flag := self._flag(first):
                    operands[0] = read(flag)
                outs = self.step(first, operands, frame)
                for var, x in zip(first.eqn.outvars, outs, strict=True):
                    write(var, x)
                continue
            eqns = [node.eqn for node in nodes]
            ins, outs, part = _compat.piece(jaxpr, eqns, needed.__contains__)
            results = _compat.evaluate(part, [], [env[v] for v in ins])
            env.update(zip(outs, results, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def _pieces(self, region: Region) -> list[tuple[list[Node], set[Var] | None]]:
        """Runs of untouched nodes with what others read of them, and touched ones alone."""
        groups: list[tuple[list[Node], bool]] = []
        for node in region.nodes:
            touched = self._is_touched(node)
            if touched or not groups or groups[-1][1]:
                groups.append(([], touched))
            groups[-1][0].append(node)
        pieces = []
        read = {a for a in region.jaxpr.outvars if isinstance(a, Var)}
        for group, touched in reversed(groups):
            pieces.append((group, None if touched else set(read)))
            for node in group:
                read.update(a for a in node.eqn.invars if isinstance(a, Var))
                read.update(filter(None, [self._flag(node)]))
        return pieces[::-1]

    def _flag(self, node: Node) -> Var | None:
        """Of a changed branch on a flag the flag, which the equation takes as an integer.

        Made from the integer again it would cost a comparison that the program did not
        have.
        """
        if node.primitive != "cond" or not any(self.names[id(b)] for b in node.bodies):
            return None
        maker = node.ins[0].producer
        if maker is None or maker.region is not node.region:
            return None
        return _compat.flag(maker.eqn)

    def step(self, node: Node, operands: list[Any], frame: Frame) -> Sequence[Any]:
        """Evaluate one touched node."""
        if node in self.node_hooks:
            op = _compat.operation(node.region.jaxpr, node.eqn)
            result = self.node_hooks[node].run(op, operands, frame)
            return result if node.eqn.primitive.multiple_results else [result]
        if not any(self.names[id(body)] for body in node.bodies):
            return self._verbatim(node, operands)
        with _compat.in_scope(node.eqn):
            if node.primitive == "scan":
                return self.scan(node, operands, frame)
            if node.primitive == "while":
                return self.while_loop(node, operands, frame)
            if node.primitive == "cond":
                return self.cond(node, operands, frame)
            (body,) = node.bodies
            if body.home is body:
                return self.remat(node, body, operands, frame)
            ins, outs = _compat.shardings(node.eqn)
            results = self.run(body, _compat.placed(operands, ins), frame)
            return _compat.placed(results, outs)

    def _verbatim(self, node: Node, operands: list[Any]) -> Sequence[Any]:
        outs = _compat.operation(node.region.jaxpr, node.eqn)(*operands)
        return outs if node.eqn.primitive.multiple_results else [outs]

    def _inside(
        self, body: Region, args: Sequence[Any], state: State, given: State
    ) -> Any:
        """Run a region that is a frame of its own."""
        frame = Frame(dict(state), given)
        outs = self.run(body, args, frame)
        return outs, {name: frame.state[name] for name in state}, frame.emitted

    def _take(self, bodies: Sequence[Region], tree: State) -> State:
        """What the hooks inside of some regions need."""
        names = dict.fromkeys(n for body in bodies for n in self.names[id(body)])
        return {name: tree[name] for name in names if name in tree}

    def remat(
        self, node: Node, body: Region, operands: list[Any], frame: Frame
    ) -> Sequence[Any]:
        """A checkpointed call: state goes in and out beside the values."""
        state = self._take([body], frame.state)
        inside = _compat.rematerialized(
            node.eqn, lambda args, state: self._inside(body, args, state, frame.given)
        )
        outs, new, emitted = inside(operands, state)
        frame.state.update(new)
        frame.emitted.update(emitted)
        return outs

    def scan(self, node: Node, operands: list[Any], frame: Frame) -> Sequence[Any]:
        """A loop: over layers state is scanned, over anything else it is carried."""
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        consts, start = operands[: parts.consts], operands[parts.consts : first]
        layered = body.loops[-1].layered
        state = self._take([body], frame.state)
        given = self._take([body], frame.given)

        def trip(carry: Any, x: Any) -> Any:
            (values, carried), (scanned, stacked, own) = carry, x
            args = [*consts, *values, *scanned]
            now, known = (stacked, own) if layered else (carried, given)
            outs, new, emitted = self._inside(body, args, now, known)
            after, ys = outs[: parts.carry], outs[parts.carry :]
            if layered:
                return (after, {}), (ys, new, emitted)
            return (after, new), (ys, {}, emitted)

        (after, carried), (ys, stacked, emitted) = lax.scan(
            trip,
            (start, {} if layered else state),
            (operands[first:], *((state, given) if layered else ({}, {}))),
            **parts.kwargs,
        )
        frame.state.update(stacked if layered else carried)
        frame.emitted.update(emitted)
        return [*after, *ys]

    def while_loop(
        self, node: Node, operands: list[Any], frame: Frame
    ) -> Sequence[Any]:
        """A loop of unknown length: state is carried, and nothing is emitted."""
        cond, _, cond_consts, body_consts = _compat.while_parts(node.eqn)
        (body,) = node.bodies
        condition, condition_consts = _compat.opened(cond)
        first = cond_consts + body_consts
        given, consts = operands[:cond_consts], operands[cond_consts:first]

        def unfinished(carry: Any) -> Any:
            (flag,) = _compat.evaluate(condition, condition_consts, [*given, *carry[0]])
            return flag

        def trip(carry: Any) -> Any:
            args = [*consts, *carry[0]]
            outs, new, _ = self._inside(body, args, carry[1], frame.given)
            return outs, new

        start = (operands[first:], self._take([body], frame.state))
        outs, state = lax.while_loop(unfinished, trip, start)
        frame.state.update(state)
        return outs

    def cond(self, node: Node, operands: list[Any], frame: Frame) -> Sequence[Any]:
        """Branches: each returns the state of all of them."""

        def branch(body: Region) -> Callable[..., Any]:
            return lambda args, state: self._inside(body, args, state, frame.given)[:2]

        index, *args = operands
        state = self._take(node.bodies, frame.state)
        fns = [branch(body) for body in node.bodies]
        outs, new = _compat.chosen(node.eqn, index, fns, args, state)
        frame.state.update(new)
        return outs
