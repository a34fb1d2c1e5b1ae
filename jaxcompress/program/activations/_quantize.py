# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: simulate the values that an integer runtime would store."""

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
from ..products._find import SiteIndex, find
from ..trace._analyze import analyze
from ..trace._graph import Program
from ..trace._interpret import Frame, Interpreter, NodeHook, ValueHook
from ._boundaries import Boundaries, Boundary, Marked, Point


class PointState(NamedTuple):
    """The state of an activation whose rounding is stateful."""

    scale: Any
    rounding: Any


@dataclasses.dataclass(frozen=True)
class ActivationQuantizer:
    """Settings for quantizing one activation: format, scale, rounding and gradient.

    Attributes:
      fmt: number format. After a ReLU a symmetric integer wastes half of its levels.
      scale: how the scale is chosen: calibrated from data (``moving_average()``,
        ``minmax()``, ``percentile()``, ``mse()``, ``entropy()``), computed on the fly
        (``dynamic()``, ``blocks(32)``, ``absmax``), or learned (``lsq()``,
        ``lsq_plus()``, ``pact()``). For signs, ``Int(1)``, range-based scales give the
        largest magnitude; ``absmax``, ``mse()`` and ``lsq()`` give the mean, which is
        more accurate.
      rounding: rounding method; None rounds to nearest.
      gradient: gradient of the rounding; None uses the default of the scale.
    """

    fmt: Format = Int(8, symmetric=False)
    scale: AnyScale = moving_average()
    rounding: Rounding | None = None
    gradient: Gradient | None = None

    def __call__(self, x: jax.Array, state: Any) -> jax.Array:
        """Round ``x`` to the grid; the gradient is the identity where nothing clips."""
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
        """The scale as a stateful scale."""
        return as_stateful(self.scale)

    def init(self, name: str) -> Any:
        """Return the state of an uncalibrated point."""
        scale = self.kept.init((), self.fmt)
        if self.rounding is None:
            return scale
        return PointState(scale, self.rounding.init(name, None))

    def observe(self, state: Any, x: jax.Array) -> Any:
        """Update the state with one more activation ``x``."""
        if self.rounding is None:
            return self.kept.observe(state, x, self.fmt)
        scale = self.kept.observe(state.scale, x, self.fmt)
        return PointState(scale, self.rounding.advance(state.rounding))

    def chosen(self, state: Any) -> Scale:
        """Return the scale at a state, for ``fake_quant`` and ``to_qarray``."""
        return as_scale(self.kept, state if self.rounding is None else state.scale)


Policy = (
    ActivationQuantizer
    | Mapping[str, ActivationQuantizer | None]
    | Callable[[Point], ActivationQuantizer | None]
)
"""Selects which points are quantized, and how: one quantizer for all points, a dict
``{glob: quantizer or None}`` on their names where the first match wins, or a function of
the point."""


def operands_only(
    quantizer: ActivationQuantizer | None = None,
) -> Callable[[Point], ActivationQuantizer | None]:
    """Policy that quantizes only the inputs of products, as in classic W8A8."""
    default = ActivationQuantizer() if quantizer is None else quantizer
    return lambda point: default if point.boundary is Boundary.OPERAND else None


class QuantizedFunction(NamedTuple):
    """The modes of a function with quantized activations.

    Attributes:
      init: ``(params, *args) -> ranges``. Returns uncalibrated ranges, a dict by point.
        The arguments may be shapes.
      calibrate: ``(params, ranges, *args) -> (out, ranges)``. Observes ranges without
        rounding. ``out`` is the result of the function, from the same equations on the
        same values.
      train: ``(params, ranges, *args) -> (out, ranges)``. Observes, then rounds to the
        updated ranges.
      frozen: ``(params, ranges, *args) -> (out, ranges)``. Rounds to the given ranges and
        does not change them.
      points: ``(params, *args) -> {name: (Point, ActivationQuantizer)}``. Lists the
        quantized points and how each is quantized.
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
    """Quantize the activations of any function where an integer runtime would.

    Use it for quantization-aware training, or to calibrate ranges after training. The
    quantized points are:

    - the inputs and the outputs;
    - the result of each product, with the bias, batch norm and ReLU fused into it;
    - both sides and the result of residual sums;
    - inputs of products that were not stored before, including QK^T and PV.

    Quantization is simulated: the function computes in floats and is not faster.
    ``execute`` multiplies integers.

    Weights are not quantized here; use a ``Compressor`` and pass its view as ``params``.
    Other variables of the model, such as batch statistics, must be in ``params`` too,
    because all other arguments count as data. The first axis of a result is assumed to be
    the batch. The ranges are an ordinary pytree; in ``train_step`` they are the
    ``model_state``. There is one range per layer in a scan over layers, and one for all
    trips of any other loop.

    Args:
      fn: ``(params, *args) -> out``; see ``sites``.
      policy: which points to quantize and how; see ``Policy``. None uses 8 asymmetric bits
        everywhere; ``operands_only()`` gives classic W8A8.
      inline_custom: also enter functions with custom derivative rules.

    Returns:
      The modes of the quantized function; see ``QuantizedFunction``.

    Raises:
      ValueError: in the modes, if a glob of the policy matches no point, if no activation
        is quantized, or if the ranges belong to another function.
      TypeError: in the modes, if ``policy`` is not a policy.

    Warns:
      OpaqueWarning: if parts of the function are not entered.

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
    resolved_policy = ActivationQuantizer() if policy is None else policy

    def prepare(params: Any, args: tuple[Any, ...]) -> Plan:
        program = analyze(fn, params, args, inline_custom=inline_custom)
        return make_plan(program, resolved_policy)

    def init(params: Any, *args: Any) -> dict[str, Any]:
        plan = prepare(params, args)
        return {
            name: stacked(quantizer.init(name), point.layers)
            for name, (point, quantizer) in plan.points.items()
        }

    def mode(*, observe: bool, rounds: bool) -> Callable[..., Any]:
        def run(
            params: Any, ranges: dict[str, Any], *args: Any
        ) -> tuple[Any, dict[str, Any]]:
            check_state_is_dict(ranges)
            plan = prepare(params, args)
            plan.index.warn("quantize_activations")
            check_names(ranges, plan.points, all_of=True)
            nodes, values = plan.hooks(observe=observe, rounds=rounds)
            leaves = jax.tree.leaves((params, args))
            out, new, _ = Interpreter(plan.program, nodes, values)(leaves, ranges)
            return out, new

        return run

    return QuantizedFunction(
        init=init,
        calibrate=mode(observe=True, rounds=False),
        train=mode(observe=True, rounds=True),
        frozen=mode(observe=False, rounds=True),
        points=lambda params, *args: prepare(params, args).points,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """The points of a program that are quantized, with their quantizers.

    Attributes:
      program: the program.
      index: its sites.
      boundaries: its points and their places.
      points: points and their quantizers, by name.
    """

    program: Program
    index: SiteIndex
    boundaries: Boundaries
    points: dict[str, tuple[Point, ActivationQuantizer]]

    def hooks(self, *, observe: bool, rounds: bool) -> tuple[Any, Any]:
        """Return the interpreter's hooks for nodes and for values."""

        def apply(name: str, x: jax.Array, frame: Frame) -> jax.Array:
            quantizer = self.points[name][1]
            if observe:
                constant = jax.lax.stop_gradient(x)
                frame.state[name] = quantizer.observe(frame.state[name], constant)
            return quantizer(x, frame.state[name]) if rounds else x

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
    index = find(program)
    choose = _as_function(policy)
    names: list[str] = []
    points: dict[str, tuple[Point, ActivationQuantizer]] = {}

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
    return Plan(program, index, boundaries, points)


def _as_function(policy: Policy) -> Callable[[Point], ActivationQuantizer | None]:
    if isinstance(policy, ActivationQuantizer):
        return lambda point: policy
    if isinstance(policy, Mapping):
        return lambda point: next(
            (value for glob, value in policy.items() if matches(glob, point.name)), None
        )
    if callable(policy):
        return policy
    raise TypeError(
        "policy must be an ActivationQuantizer, such as "
        "ActivationQuantizer(Int(8, symmetric=False)), a dict {glob: ActivationQuantizer "
        f"or None}}, or a function of a Point, got a {type(policy).__name__}."
    )
