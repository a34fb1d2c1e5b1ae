# SPDX-License-Identifier: Apache-2.0
"""Run a program on constants and named inputs, and record what depends on the inputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..trace import _compat
from ..trace._compat import Var
from ._constants import evaluate
from ._graph import Atom, Constant, Operation, Tensor

QUANTIZE = "quantize"
CLOSED_OVER = "(closed over)"  # the leaf of an array that is not an argument

# They return their operand, where nothing is distributed and nothing differentiated.
_UNCHANGED = {
    "copy", "copy_p", "name", "optimization_barrier", "pbroadcast", "pcast", "pvary",
    "reduce_precision", "reshard", "sharding_constraint", "stop_gradient",
}  # fmt: skip
_RANDOM = {"random_bits", "rng_bit_generator", "rng_uniform", "threefry2x32"}
_MAX_TRIPS = 4096


class Unsupported(ValueError):
    """The function does something that a list of operations cannot express."""


class Flattener:
    """Records the operations of a program on data.

    Calls are entered, loops are unrolled, branches are chosen, and what does not depend on
    the inputs is evaluated.

    Attributes:
      operations: the operations, in order.
      draws: whether random numbers were drawn, which are constants now.

    Args:
      marks: ``{name of a call: parameters}`` of calls that are recorded as "quantize".
    """

    def __init__(self, marks: dict[str, dict[str, Any]]):
        self.marks = marks
        self.operations: list[Operation] = []
        self.draws = False

    def run(
        self, jaxpr: Any, consts: Sequence[Any], args: Sequence[Atom], scope: str
    ) -> list[Atom]:
        """Record a jaxpr, and return its results."""
        env: dict[Var, Atom] = {}
        for var, x in zip(jaxpr.constvars, consts, strict=True):
            env[var] = Constant(np.asarray(x), leaf=CLOSED_OVER)
        env.update(zip(jaxpr.invars, args, strict=True))

        def read(atom: Any) -> Atom:
            if isinstance(atom, Var):
                return env[atom]
            return Constant(np.asarray(atom.val, atom.aval.dtype))

        for eqn in jaxpr.eqns:
            inner = "/".join(filter(None, (scope, _compat.scope(eqn))))
            outs = self.step(jaxpr, eqn, [read(a) for a in eqn.invars], inner)
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(a) for a in jaxpr.outvars]

    def step(self, jaxpr: Any, eqn: Any, ins: list[Atom], scope: str) -> Sequence[Atom]:
        """Record one equation."""
        name = eqn.primitive.name
        params = _compat.parameters(eqn)
        if name in _compat.INLINED and params.get("name") in self.marks:
            mark = self.marks[params["name"]]
            return self.quantize(jaxpr, eqn, ins, scope, mark)
        if name in _UNCHANGED:
            return ins
        if name == "cond":
            return self.cond(eqn, ins, scope)
        if name == "scan":
            return self.scan(eqn, ins, scope)
        if name == "while":
            return self.while_loop(eqn, ins, scope)
        entered = _compat.INLINED | _compat.CUSTOM_RULES | _compat.REMATERIALIZED
        if name in entered:
            (body,) = _compat.bodies(eqn)
            return self.run(*_compat.opened(body), ins, scope)
        op, many = _compat.operation(jaxpr, eqn), eqn.primitive.multiple_results
        constants = [x for x in ins if isinstance(x, Constant)]
        if len(constants) == len(ins):
            self.draws |= name in _RANDOM
            return evaluate(name, op, params, constants, many=many)
        if name == "convert_element_type" and ins[0].dtype == params["new_dtype"]:
            return ins
        return _simple(name, ins, eqn) or self.record(
            name, params, ins, eqn, scope, op, many
        )

    def record(
        self,
        name: str,
        params: dict[str, Any],
        ins: list[Atom],
        eqn: Any,
        scope: str,
        op: Callable[..., Any],
        many: bool = False,
    ) -> list[Tensor]:
        """Add an operation."""
        outs = [Tensor(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
        bind = op if many else lambda *xs: [op(*xs)]
        self.operations.append(Operation(name, params, ins, outs, scope, bind))
        return outs

    def quantize(
        self, jaxpr: Any, eqn: Any, ins: list[Atom], scope: str, mark: dict[str, Any]
    ) -> Sequence[Atom]:
        """Record the rounding of an activation."""
        x, *grid = ins
        if isinstance(x, Constant):
            values = [atom.value for atom in ins if isinstance(atom, Constant)]
            outs = _compat.operation(jaxpr, eqn)(*values)
            return [Constant(np.asarray(outs[0]))]
        if not all(isinstance(c, Constant) for c in grid):
            raise Unsupported(
                f"the scale of {mark['name']!r} is computed from the data on the fly; a "
                "fixed graph needs calibrated scales, such as moving_average()."
            )
        values = [np.asarray(c.value) for c in grid if isinstance(c, Constant)]
        if any(v.size != 1 for v in values):
            raise Unsupported(
                f"{mark['name']!r} has {values[0].size} scales; an activation must have "
                "one."
            )
        scale = np.float32(values[0].reshape(()))
        if not np.isfinite(scale) or scale <= 0:
            raise Unsupported(
                f"the range of {mark['name']!r} gives the scale {scale}; calibrate it on "
                "real data first."
            )
        zero_point = np.int32(values[1].reshape(())) if len(values) > 1 else np.int32(0)
        params = {**mark, "scale": scale, "zero_point": zero_point}
        run = _compat.operation(jaxpr, eqn)

        def op(x: Any) -> Any:
            return run(x, *(jnp.asarray(v) for v in values))[0]

        return self.record(QUANTIZE, params, [x], eqn, scope, op)

    def cond(self, eqn: Any, ins: list[Atom], scope: str) -> Sequence[Atom]:
        """Record the branch that is taken."""
        index, *args = ins
        if not isinstance(index, Constant):
            raise Unsupported(
                f"a branch in {scope or 'the function'!r} depends on the data; select both "
                "results with jnp.where instead."
            )
        branches = _compat.branches(eqn)
        chosen = int(np.clip(int(index.value), 0, len(branches) - 1))
        return self.run(*_compat.opened(branches[chosen]), args, scope)

    def scan(self, eqn: Any, ins: list[Atom], scope: str) -> Sequence[Atom]:
        """Record all trips of a scan."""
        parts = _compat.scan_parts(eqn)
        body, body_consts = _compat.opened(_compat.bodies(eqn)[0])
        _check_trips(parts.length, scope)
        first = parts.consts + parts.carry
        consts, carry, stacked = (
            ins[: parts.consts],
            ins[parts.consts : first],
            ins[first:],
        )
        order = range(parts.length)
        if parts.kwargs.get("reverse"):
            order = reversed(order)
        rows: dict[int, list[Atom]] = {}
        for i in order:
            trip = [self.take(x, i, scope) for x in stacked]
            outs = self.run(body, body_consts, [*consts, *carry, *trip], scope)
            carry, rows[i] = outs[: parts.carry], outs[parts.carry :]
        columns = [
            self.stack([rows[i][k] for i in range(parts.length)], var, scope)
            for k, var in enumerate(eqn.outvars[parts.carry :])
        ]
        return [*carry, *columns]

    def while_loop(self, eqn: Any, ins: list[Atom], scope: str) -> Sequence[Atom]:
        """Record all trips of a loop whose end does not depend on the data."""
        cond, body, cond_consts, body_consts = _compat.while_parts(eqn)
        first = cond_consts + body_consts
        for trips in range(_MAX_TRIPS + 1):
            _check_trips(trips, scope)
            carry = ins[first:]
            (again,) = self.run(
                *_compat.opened(cond), [*ins[:cond_consts], *carry], scope
            )
            if not isinstance(again, Constant):
                raise Unsupported(
                    f"the number of trips of a loop in {scope or 'the function'!r} depends "
                    "on the data; a fixed graph needs a fixed number."
                )
            if not again.value:
                break
            args = [*ins[cond_consts:first], *carry]
            ins = [*ins[:first], *self.run(*_compat.opened(body), args, scope)]
        return ins[first:]

    def take(self, x: Atom, i: int, scope: str) -> Atom:
        """Return one trip's part of what a scan runs over."""
        return self.call(lambda x: x[i], [x], scope)

    def stack(self, rows: list[Atom], var: Any, scope: str) -> Atom:
        """Stack the results of trips."""
        if not rows:
            return Constant(np.zeros(var.aval.shape, var.aval.dtype))
        return self.call(lambda *xs: jnp.stack(xs), rows, scope)

    def call(self, fn: Callable[..., Any], ins: list[Atom], scope: str) -> Atom:
        """Record a function of atoms."""
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in ins]
        jaxpr, consts, _ = _compat.trace(fn, *shapes)
        (out,) = self.run(jaxpr, consts, ins, scope)
        return out


def _simple(name: str, ins: Sequence[Atom], eqn: Any) -> list[Atom] | None:
    """Return what a sum or product with zeros is; loops often start with zeros."""
    if name not in ("mul", "add", "add_any"):
        return None
    zeros = [x for x in ins if isinstance(x, Constant) and not x.value.any()]
    if len(ins) != 2 or len(zeros) != 1:
        return None
    other = ins[1] if ins[0] is zeros[0] else ins[0]
    aval = eqn.outvars[0].aval
    if name == "mul":
        return [Constant(np.broadcast_to(np.zeros((), aval.dtype), aval.shape))]
    return [other] if other.shape == aval.shape else None


def _check_trips(trips: int, scope: str) -> None:
    if trips >= _MAX_TRIPS:
        raise Unsupported(
            f"a loop in {scope or 'the function'!r} has {trips} trips or more; exporters "
            f"unroll loops of up to {_MAX_TRIPS}. Export one step and loop outside."
        )
