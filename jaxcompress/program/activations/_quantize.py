# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: a function that computes on the grids of an integer runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ..._select import closest, matches
from ...formats import Format, Int, nearest
from ...quantize import fake_quant
from ...quantize.gradients import Gradient
from ...quantize.rounding import Rounding
from ...quantize.scales import (
    AnyScale,
    Scale,
    StatefulScale,
    as_scale,
    as_stateful,
    moving_average,
)
from .._rewrite import check_names, check_state_is_dict, stacked
from ..products._find import Found, find
from ..trace._analyze import analyze
from ..trace._graph import Program
from ..trace._interpret import Frame, Interpreter, NodeHook, ValueHook
from ._boundaries import Boundaries, Boundary, Marked, Point


class PointState(NamedTuple):
    """What is kept of one activation whose rounding has a state."""

    scale: Any
    rounding: Any


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer:
    """How an activation is quantized.

    Attributes:
      fmt: which levels there are. After a ReLU a symmetric integer wastes half of them.
      scale: how its scale is chosen: from data (``moving_average()``, ``minmax()``,
        ``percentile()``, ``mse()``, ``entropy()``), as it comes (``dynamic()``,
        ``blocks(32)``, ``absmax``), or learned (``lsq()``, ``lsq_plus()``, ``pact()``).
        Of signs, ``Int(1)``, ranges give the largest magnitude; ``absmax``, ``mse()``
        and ``lsq()`` give the mean, which is nearer.
      rounding: to which level; None: to the nearest.
      gradient: of the rounding; None: what suits the scale.
    """

    fmt: Format = Int(8, symmetric=False)
    scale: AnyScale = moving_average()
    rounding: Rounding | None = None
    gradient: Gradient | None = None

    def __call__(self, x: jax.Array, state: Any) -> jax.Array:
        """Round to the grid; backward, the identity where nothing is clipped."""
        to_integer = nearest
        if self.rounding is not None:
            to_integer = self.rounding.read(state.rounding, x.shape)
        return fake_quant(
            x,
            self.fmt,
            scale=self.chosen(state),
            to_integer=to_integer,
            gradient=self.gradient or self.kept.gradient,
        )

    @property
    def kept(self) -> StatefulScale:
        """The scale, as one with a state."""
        return as_stateful(self.scale)

    def init(self, name: str) -> Any:
        """The state of a point that has seen nothing."""
        scale = self.kept.init((), self.fmt)
        if self.rounding is None:
            return scale
        return PointState(scale, self.rounding.init(name, None))

    def observe(self, state: Any, x: jax.Array) -> Any:
        """The state, having seen ``x`` too."""
        if self.rounding is None:
            return self.kept.observe(state, x, self.fmt)
        scale = self.kept.observe(state.scale, x, self.fmt)
        return PointState(scale, self.rounding.advance(state.rounding))

    def chosen(self, state: Any) -> Scale:
        """The scale of a state, for ``fake_quant`` and ``to_qarray``."""
        return as_scale(self.kept, state if self.rounding is None else state.scale)


Policy = (
    ActivationQuantizer
    | Mapping[str, ActivationQuantizer | None]
    | Callable[[Point], ActivationQuantizer | None]
)
"""Which points are quantized, and how: one way for all of them, ``{glob: way or None}`` on
their names of which the first match counts, or a function of the point."""


def operands_only(
    quantizer: ActivationQuantizer | None = None,
) -> Callable[[Point], ActivationQuantizer | None]:
    """The policy that quantizes what products read, and nothing else."""
    chosen = ActivationQuantizer() if quantizer is None else quantizer
    return lambda point: chosen if point.boundary is Boundary.OPERAND else None


class QuantizedFunction(NamedTuple):
    """A function with quantized activations, in its modes.

    Attributes:
      init: ``(params, *args) -> ranges``: of nothing seen yet, a dict by point. The
        arguments may be shapes.
      calibrate: ``(params, ranges, *args) -> (out, ranges)``: observes; the result is
        that of the function: the same equations on the same values.
      train: likewise: observes, then rounds to the grid of what it has seen.
      frozen: likewise: rounds to the grid of the ranges and leaves them as they are.
      points: ``(params, *args) -> {name: (Point, ActivationQuantizer)}``: what is
        quantized, and how.
    """

    init: Callable[..., dict[str, Any]]
    calibrate: Callable[..., tuple[Any, dict[str, Any]]]
    train: Callable[..., tuple[Any, dict[str, Any]]]
    frozen: Callable[..., tuple[Any, dict[str, Any]]]
    points: Callable[..., dict[str, tuple[Point, ActivationQuantizer]]]


def quantize_activations(
    fn: Callable[..., Any],
    policy: Policy | None = None,
    *,
    inline_custom: bool = False,
) -> QuantizedFunction:
    """Quantize the activations of any function, wherever an integer runtime would.

    Points are the inputs, what each product gives (with the bias, batch norm and ReLU
    that are fused to it), both sides and the result of residual sums, what products read
    that nobody stored before (QK^T and PV included), and the outputs. Simulated: the
    function computes in floats and is no faster; ``execute`` multiplies integers.

    Weights are left to a ``Compressor``: ``params`` may be its view. Whatever else the
    model has, such as batch statistics, belongs to ``params`` too: every other argument is
    data. The first axis of a result is taken for the batch. The ranges are an
    ordinary pytree; in ``train_step`` they are the ``model_state``. There is one range for
    each layer of a scan over layers, and one for all trips of any other loop.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      policy: how: None for 8 asymmetric bits everywhere; see ``Policy``, and
        ``operands_only`` for the classic W8A8.
      inline_custom: look into functions with derivative rules of their own.

    Raises:
      ValueError: in the modes, if a glob of the policy matches no point, if nothing at
        all is quantized, or if the ranges belong to another function.

    Warns:
      OpaqueWarning: where parts of the function are not entered.

    Example:
      >>> import jax, jax.numpy as jnp, jaxcompress as jc
      >>> params = {"w": jnp.eye(3)}
      >>> quantized = jc.quantize_activations(lambda params, x: x @ params["w"])
      >>> x = jnp.array([[0.0, 0.5, 255.0]])
      >>> ranges = quantized.init(params, x)
      >>> sorted(ranges)
      ['input/0', 'w/output']
      >>> _, ranges = jax.jit(quantized.calibrate)(params, ranges, x)
      >>> out, _ = jax.jit(quantized.frozen)(params, ranges, jnp.array([[3.2, -9, 999]]))
      >>> out.tolist()
      [[3.0, 0.0, 255.0]]

    References:
      Jacob et al., 2017, https://arxiv.org/abs/1712.05877
    """
    chosen = ActivationQuantizer() if policy is None else policy

    def plan(params: Any, args: tuple[Any, ...]) -> Plan:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        return make_plan(program, chosen)

    def init(params: Any, *args: Any) -> dict[str, Any]:
        known = plan(params, args)
        return {
            name: stacked(way.init(name), point.layers)
            for name, (point, way) in known.points.items()
        }

    def mode(*, observe: bool, rounds: bool) -> Callable[..., Any]:
        def run(
            params: Any, ranges: dict[str, Any], *args: Any
        ) -> tuple[Any, dict[str, Any]]:
            check_state_is_dict(ranges)
            known = plan(params, args)
            known.found.warn("quantize_activations")
            check_names(ranges, known.points, all_of=True)
            nodes, values = known.hooks(observe=observe, rounds=rounds)
            leaves = jax.tree.leaves((params, args))
            out, new, _ = Interpreter(known.program, nodes, values)(leaves, ranges)
            return out, new

        return run

    return QuantizedFunction(
        init=init,
        calibrate=mode(observe=True, rounds=False),
        train=mode(observe=True, rounds=True),
        frozen=mode(observe=False, rounds=True),
        points=lambda params, *args: plan(params, args).points,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is quantized in a program, and how.

    Attributes:
      program: the program.
      found: its sites.
      boundaries: its points, where they are.
      points: by name, with how they are quantized.
    """

    program: Program
    found: Found
    boundaries: Boundaries
    points: dict[str, tuple[Point, ActivationQuantizer]]

    def hooks(self, *, observe: bool, rounds: bool) -> tuple[Any, Any]:
        """What the interpreter does at the nodes and at the values."""

        def apply(name: str, x: jax.Array, frame: Frame) -> jax.Array:
            way = self.points[name][1]
            if observe:
                seen = jax.lax.stop_gradient(x)
                frame.state[name] = way.observe(frame.state[name], seen)
            return way(x, frame.state[name]) if rounds else x

        def once(mark: Marked, x: jax.Array, frame: Frame) -> jax.Array:
            # Several sites of a frame may read one value, which is stored once.
            if mark.point.name not in frame.kept:
                frame.kept[mark.point.name] = apply(mark.point.name, x, frame)
            return frame.kept[mark.point.name]

        by_node: dict[Any, list[Marked]] = {}
        for mark in self.boundaries.marks:
            if mark.node is not None:
                by_node.setdefault(mark.node, []).append(mark)

        def at_node(marks: list[Marked]) -> NodeHook:
            def run(op: Any, operands: list[Any], frame: Frame) -> Any:
                operands = list(operands)
                for mark in marks:
                    operands[mark.operand] = once(mark, operands[mark.operand], frame)
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
    found = find(program)
    choose = _chooser(policy)
    names: list[str] = []
    points: dict[str, tuple[Point, ActivationQuantizer]] = {}

    def accept(point: Point) -> bool:
        names.append(point.name)
        way = choose(point)
        if way is not None:
            points[point.name] = (point, way)
        return way is not None

    marked = Boundaries(program, found, accept)
    if isinstance(policy, Mapping):
        for glob in policy:
            if not any(matches(glob, name) for name in names):
                near = ", ".join(map(repr, closest(glob, names)))
                raise ValueError(
                    f"{glob!r} matches none of {len(names)} points; closest: {near}. "
                    "Globs match the whole name."
                )
    if not points:
        offered = (
            f"of the points {names[:5]} the policy takes none"
            if names
            else ("it has no floating-point input")
        )
        raise ValueError(f"no activation of the function is quantized: {offered}.")
    return Plan(program, found, marked, points)


def _chooser(policy: Policy) -> Callable[[Point], ActivationQuantizer | None]:
    if isinstance(policy, ActivationQuantizer):
        return lambda point: policy
    if isinstance(policy, Mapping):
        return lambda point: next(
            (way for glob, way in policy.items() if matches(glob, point.name)), None
        )
    if callable(policy):
        return policy
    raise TypeError(
        f"the policy is of type {type(policy).__name__}; give an ActivationQuantizer, "
        "such as ActivationQuantizer(Int(8, symmetric=False)), a dict {glob: "
        "ActivationQuantizer or None}, or a function of a Point."
    )
