# SPDX-License-Identifier: Apache-2.0
"""A plan: the points of a program that a policy quantizes, and the hooks that do it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from ..._origin import format_name
from ..._select import closest, matches
from ..._table import table
from ..._warn import warn
from ..products._find import SiteIndex, find
from ..trace._analyze import with_constants
from ..trace._graph import Program
from ..trace._interpret import Frame, NodeHook, ValueHook
from ._arguments import Arguments
from ._boundaries import Boundaries, Marked, Point
from ._check_range import check_range
from ._quantizer import ActivationQuantizer, Choose, Policy, operands_only


class ArgumentWarning(UserWarning):
    """An argument that is quantized as an activation may be the state of a norm."""


RoundAt = Callable[[str, ActivationQuantizer, Any, jax.Array], jax.Array]


def _round_at(
    name: str, quantizer: ActivationQuantizer, state: Any, x: jax.Array
) -> jax.Array:
    del name
    return quantizer(x, state)


class Points(dict[str, tuple[Point, ActivationQuantizer]]):
    """Points and their quantizers, by name; prints as a table."""

    def __str__(self) -> str:
        rows = [("point", "boundary", "value", "format", "scale")]
        for name, (point, quantizer) in self.items():
            shape = ",".join(map(str, point.value.shape))
            value = f"{point.value.dtype.name}[{shape}]"
            boundary, grid = point.boundary.name.lower(), format_name(quantizer.fmt)
            rows.append((name, boundary, value, grid, _maker(quantizer.scale)))
        return table(rows)


def _maker(scale: Any) -> str:
    """Return the name of the function that chooses a scale, or that made it."""
    function = scale[0] if isinstance(scale, tuple) else scale
    name = getattr(function, "__qualname__", type(function).__name__)
    return name.split(".")[0]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The points of a program that are quantized, with their quantizers.

    Attributes:
      program: the program.
      index: its sites.
      boundaries: its points and their places.
      points: points and their quantizers, by name.
      doubtful: paths of quantized arguments that may be the state of a norm.
    """

    program: Program
    index: SiteIndex
    boundaries: Boundaries
    points: Points
    doubtful: tuple[str, ...]

    def warn(self) -> None:
        """Warn about what is not entered, and about arguments that may not be data."""
        self.index.warn("quantize_activations")
        if self.doubtful:
            names = ", ".join(f"'input/{path}'" for path in self.doubtful)
            warn(
                f"{names}: the function uses these arguments like the state of a norm, one "
                "vector for the whole batch, but also in other ways. They are quantized as "
                "data. Pass state in `params`; for data, ignore this warning.",
                ArgumentWarning,
            )

    @functools.cached_property
    def in_loops(self) -> frozenset[str]:
        """Names of the points that loops visit often, whose calls must count once."""
        return frozenset(
            mark.point.name
            for mark in self.boundaries.marks
            if mark.repeats and self.points[mark.point.name][1].kept.call is not None
        )

    def opened(self, ranges: dict[str, Any]) -> dict[str, Any]:
        """Return the ranges as they are while a call observes."""
        return self._in_loops(ranges, ActivationQuantizer.opened)

    def closed(self, ranges: dict[str, Any]) -> dict[str, Any]:
        """Return the ranges after a call has observed."""
        return self._in_loops(ranges, ActivationQuantizer.closed)

    def _in_loops(
        self, ranges: dict[str, Any], change: Callable[..., Any]
    ) -> dict[str, Any]:
        def changed(name: str, state: Any) -> Any:
            point, quantizer = self.points[name]
            one = functools.partial(change, quantizer)
            for _ in point.layers:
                one = jax.vmap(one)
            return one(state)

        return {
            name: changed(name, state) if name in self.in_loops else state
            for name, state in ranges.items()
        }

    def hooks(
        self, *, observe: bool, rounds: bool, round_at: RoundAt = _round_at
    ) -> tuple[Any, Any]:
        """Return the interpreter's hooks for nodes and for values.

        Args:
          observe: whether the points observe their activations.
          rounds: whether the points round them.
          round_at: ``(name, quantizer, state, x) -> x``, how a point rounds.
        """

        def apply(name: str, x: jax.Array, frame: Frame) -> jax.Array:
            quantizer, state = self.points[name][1], frame.state[name]
            if observe:
                constant = jax.lax.stop_gradient(x)
                in_loop = name in self.in_loops
                see = quantizer.revisited if in_loop else quantizer.observe
                frame.state[name] = see(state, constant)
                state = frame.state[name]
                if in_loop:
                    state = quantizer.closed(state)
            check_range(name, quantizer, state, x)
            return round_at(name, quantizer, state, x) if rounds else x

        def apply_once(mark: Marked, x: jax.Array, frame: Frame) -> jax.Array:
            # Several sites of a frame may read the same value, which is stored once.
            if mark.point.name not in frame.cache:
                frame.cache[mark.point.name] = apply(mark.point.name, x, frame)
            return frame.cache[mark.point.name]

        by_node: dict[Any, list[Marked]] = {}
        for mark in self.boundaries.marks:
            if mark.node is not None:
                by_node.setdefault(mark.node, []).append(mark)

        def at_node(marks: list[Marked]) -> NodeHook:
            def run(op: Any, operands: list[Any], frame: Frame) -> Any:
                operands = list(operands)
                for mark in marks:
                    x = operands[mark.operand]
                    operands[mark.operand] = apply_once(mark, x, frame)
                return op(*operands)

            return NodeHook(tuple(m.point.name for m in marks), run)

        def at_value(name: str) -> ValueHook:
            return ValueHook((name,), lambda x, frame: apply(name, x, frame))

        nodes = {node: at_node(marks) for node, marks in by_node.items()}
        values = {
            mark.value: at_value(mark.point.name)
            for mark in self.boundaries.marks
            if mark.node is None
        }
        return nodes, values


def make_plan(program: Program, policy: Policy) -> Plan:
    """Apply a policy to the points of a program.

    Raises:
      ValueError: if a glob matches nothing, or nothing is quantized.
    """
    arguments = Arguments(program)
    if constants := arguments.constants():
        program = with_constants(program, constants)
    index = find(program)
    choose = _as_function(policy)
    names: list[str] = []
    points = Points()

    def accept(point: Point) -> bool:
        names.append(point.name)
        quantizer = choose(point)
        if quantizer is not None and not isinstance(quantizer, ActivationQuantizer):
            raise TypeError(
                "a policy must give an ActivationQuantizer (ActivationQuantizer(Int(8))) "
                f"or None, got {quantizer!r} for {point.name!r}."
            )
        if quantizer is not None:
            points[point.name] = (point, quantizer)
        return quantizer is not None

    boundaries = Boundaries(program, index, accept)
    if isinstance(policy, Mapping):
        for glob in policy:
            if not any(matches(glob, name) for name in names):
                near = ", ".join(map(repr, closest(glob, names)))
                raise ValueError(
                    f"{glob!r} matches none of {len(names)} points; closest: {near}. "
                    "Globs match the whole name."
                )
    if not points:
        reason = (
            f"the policy selects none of the points {names[:5]}"
            if names
            else "it has no floating-point input"
        )
        raise ValueError(f"no activation of the function is quantized: {reason}.")
    doubtful = [path for path in arguments.doubtful() if f"input/{path}" in points]
    return Plan(program, index, boundaries, points, tuple(doubtful))


def _as_function(policy: Policy) -> Choose:
    if isinstance(policy, ActivationQuantizer):
        return operands_only(policy)
    if isinstance(policy, Mapping):
        return lambda point: _by_glob(policy, point)
    if callable(policy):
        return policy
    raise TypeError(
        "policy must be an ActivationQuantizer, such as "
        "ActivationQuantizer(Int(8, symmetric=False)), everywhere(), a dict {glob: "
        "ActivationQuantizer or None}, or a function of a Point, got a "
        f"{type(policy).__name__}."
    )


def _by_glob(policy: Mapping[str, Any], point: Point) -> Any:
    for glob, value in policy.items():
        if matches(glob, point.name):
            if isinstance(value, ActivationQuantizer) or not callable(value):
                return value
            return value(point)
    return None
