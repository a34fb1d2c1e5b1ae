# SPDX-License-Identifier: Apache-2.0
"""Rerun a traced program with changes at chosen equations and values.

Unchanged equations run in one piece through JAX's own evaluator, so their derivative
rules, random bits, effects and shardings stay intact. Loops and branches that contain a
change are rebuilt, with state threaded through them.
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
"""State by name; each entry is any pytree of arrays."""


@dataclasses.dataclass
class Frame:
    """Data that the hooks of one loop body, branch or program share during tracing.

    Attributes:
      state: state by name. A hook reads and replaces the entries of its own names.
      constants: read-only inputs of hooks, by name.
      emitted: extra outputs of hooks, by name. Loops stack them.
      cache: scratch space by any key, dropped at the end of the frame.
    """

    state: State
    constants: State = dataclasses.field(default_factory=dict)
    emitted: dict[str, Any] = dataclasses.field(default_factory=dict)
    cache: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class NodeHook:
    """Replaces an equation.

    Attributes:
      names: names of the state it reads or writes.
      run: ``(op, operands, frame) -> result``; ``op(*operands)`` is the equation.
    """

    names: tuple[str, ...]
    run: Callable[[Callable[..., Any], list[Any], Frame], Any]


@dataclasses.dataclass(frozen=True)
class ValueHook:
    """Replaces a value for all of its readers.

    Attributes:
      names: names of the state it reads or writes.
      run: ``(x, frame) -> x``.
    """

    names: tuple[str, ...]
    run: Callable[[Any, Frame], Any]


class Interpreter:
    """Evaluates a program with hooks.

    Args:
      program: program from ``analyze``.
      nodes: hooks that replace equations.
      values: hooks that replace values.
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
        self._collect_names(program.root)

    def __call__(
        self, leaves: Sequence[Any], state: State, constants: State | None = None
    ) -> tuple[Any, State, dict[str, Any]]:
        """Run the program.

        Args:
          leaves: leaves of the parameters and the arguments.
          state: state by name.
          constants: read-only inputs of hooks, by name. Like state, they have one axis per
            loop over layers around the hook.

        Returns:
          The function's result, the new state, and the emitted values.
        """
        frame = Frame(dict(state), dict(constants or {}))
        outs = self.run(self.program.root, list(leaves), frame)
        # A constant that the function returns may not be an array yet.
        outs = [x if isinstance(x, jax.Array) else jnp.asarray(x) for x in outs]
        out = jax.tree.unflatten(self.program.out_tree, outs)
        return out, frame.state, frame.emitted

    def _collect_names(self, region: Region) -> tuple[str, ...]:
        """Collect the state names used inside a region; without any it runs unchanged."""
        names: dict[str, None] = {}
        key = id(region)
        variables = [*region.jaxpr.constvars, *region.jaxpr.invars]
        for node in region.nodes:
            variables += node.eqn.outvars
            if node in self.node_hooks:
                names.update((n, None) for n in self.node_hooks[node].names)
            for body in node.bodies:
                names.update((n, None) for n in self._collect_names(body))
        for var in variables:
            for hook in self.value_hooks.get((key, var), ()):
                names.update((n, None) for n in hook.names)
        self.names[key] = tuple(names)
        return self.names[key]

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
        """Group nodes into runs of untouched nodes and single touched nodes.

        Each run comes with the variables that other nodes read from it; touched nodes
        come with None.
        """
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
        """Return the bool behind the integer index of a changed branch, if there is one.

        Recovering it from the integer would add a comparison to the program.
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

    def _run_frame(
        self, body: Region, args: Sequence[Any], state: State, constants: State
    ) -> Any:
        """Run a region in its own frame."""
        frame = Frame(dict(state), constants)
        outs = self.run(body, args, frame)
        return outs, {name: frame.state[name] for name in state}, frame.emitted

    def _take(self, bodies: Sequence[Region], tree: State) -> State:
        """Return the entries that the hooks inside some regions need."""
        names = dict.fromkeys(n for body in bodies for n in self.names[id(body)])
        return {name: tree[name] for name in names if name in tree}

    def remat(
        self, node: Node, body: Region, operands: list[Any], frame: Frame
    ) -> Sequence[Any]:
        """Run a checkpointed call, with state as an extra argument and result."""
        state = self._take([body], frame.state)
        fn = _compat.rematerialized(
            node.eqn,
            lambda args, state: self._run_frame(body, args, state, frame.constants),
        )
        outs, new, emitted = fn(operands, state)
        frame.state.update(new)
        frame.emitted.update(emitted)
        return outs

    def scan(self, node: Node, operands: list[Any], frame: Frame) -> Sequence[Any]:
        """Run a scan: state is scanned over layers, and carried in any other loop."""
        (body,) = node.bodies
        parts = _compat.scan_parts(node.eqn)
        first = parts.consts + parts.carry
        consts, start = operands[: parts.consts], operands[parts.consts : first]
        layered = body.loops[-1].layered
        state = self._take([body], frame.state)
        constants = self._take([body], frame.constants)

        def trip(carry: Any, x: Any) -> Any:
            (values, carried), (scanned, stacked, own) = carry, x
            args = [*consts, *values, *scanned]
            trip_state, trip_constants = (
                (stacked, own) if layered else (carried, constants)
            )
            outs, new, emitted = self._run_frame(body, args, trip_state, trip_constants)
            after, ys = outs[: parts.carry], outs[parts.carry :]
            if layered:
                return (after, {}), (ys, new, emitted)
            return (after, new), (ys, {}, emitted)

        (after, carried), (ys, stacked, emitted) = lax.scan(
            trip,
            (start, {} if layered else state),
            (operands[first:], *((state, constants) if layered else ({}, {}))),
            **parts.kwargs,
        )
        frame.state.update(stacked if layered else carried)
        frame.emitted.update(emitted)
        return [*after, *ys]

    def while_loop(
        self, node: Node, operands: list[Any], frame: Frame
    ) -> Sequence[Any]:
        """Run a while loop: state is carried, and nothing is emitted."""
        cond, _, cond_consts, body_consts = _compat.while_parts(node.eqn)
        (body,) = node.bodies
        condition, condition_consts = _compat.opened(cond)
        first = cond_consts + body_consts
        cond_operands, consts = operands[:cond_consts], operands[cond_consts:first]

        def unfinished(carry: Any) -> Any:
            args = [*cond_operands, *carry[0]]
            (flag,) = _compat.evaluate(condition, condition_consts, args)
            return flag

        def trip(carry: Any) -> Any:
            args = [*consts, *carry[0]]
            outs, new, _ = self._run_frame(body, args, carry[1], frame.constants)
            return outs, new

        start = (operands[first:], self._take([body], frame.state))
        outs, state = lax.while_loop(unfinished, trip, start)
        frame.state.update(state)
        return outs

    def cond(self, node: Node, operands: list[Any], frame: Frame) -> Sequence[Any]:
        """Run a conditional: each branch returns the state of all branches."""

        def branch(body: Region) -> Callable[..., Any]:
            return lambda args, state: self._run_frame(
                body, args, state, frame.constants
            )[:2]

        index, *args = operands
        state = self._take(node.bodies, frame.state)
        fns = [branch(body) for body in node.bodies]
        outs, new = _compat.run_branch(node.eqn, index, fns, args, state)
        frame.state.update(new)
        return outs
