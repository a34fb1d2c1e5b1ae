# SPDX-License-Identifier: Apache-2.0
"""How one activation is quantized, and which activations are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from ...formats import Format, Int, nearest
from ...quantize import fake_quant
from ...quantize.gradients import Gradient
from ...quantize.rounding import Rounding
from ...quantize.scales import (
    AnyScale,
    Call,
    Scale,
    StatefulScale,
    as_scale,
    as_stateful,
    moving_average,
)
from ._boundaries import Boundary, Point


class PointState(NamedTuple):
    """The state of an activation whose rounding is stateful."""

    scale: Any
    rounding: Any


class InLoop(NamedTuple):
    """The state of a point in a loop during a call, which counts once as a whole."""

    scale: Any  # before the call
    seen: Any  # all activations of this call
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

    def opened(self, state: Any) -> InLoop:
        """Return the state of a point in a loop when a call begins."""
        scale = state if self.rounding is None else state.scale
        rounding = None if self.rounding is None else state.rounding
        return InLoop(scale, _call(self.kept).start(scale), rounding)

    def revisited(self, state: InLoop, x: jax.Array) -> InLoop:
        """Update the state of a point in a loop with one more trip's activation."""
        seen = _call(self.kept).add(state.seen, state.scale, x, self.fmt)
        rounding = state.rounding
        if self.rounding is not None:
            rounding = self.rounding.advance(rounding)
        return InLoop(state.scale, seen, rounding)

    def closed(self, state: InLoop) -> Any:
        """Return the state of a point in a loop as if the call ended here."""
        scale = _call(self.kept).end(state.scale, state.seen)
        return scale if self.rounding is None else PointState(scale, state.rounding)

    def chosen(self, state: Any) -> Scale:
        """Return the scale at a state, for ``fake_quant`` and ``to_qarray``."""
        return as_scale(self.kept, state if self.rounding is None else state.scale)


def _call(scale: StatefulScale) -> Call:
    assert scale.call is not None
    return scale.call


Choose = Callable[[Point], ActivationQuantizer | None]

Policy = (
    ActivationQuantizer | Choose | Mapping[str, ActivationQuantizer | Choose | None]
)
"""Selects which points are quantized, and how. One of

- a quantizer, for the operands of products: short for ``operands_only(quantizer)``;
- a function of the point: ``operands_only()``, ``everywhere()``, or your own;
- a dict ``{glob: quantizer, function of the point, or None}``. The first glob that matches
  the name of a point decides: ``{"head/*": None, "*": operands_only()}``."""


def operands_only(quantizer: ActivationQuantizer | None = None) -> Choose:
    """Policy that quantizes only the inputs of products, as in classic W8A8.

    This is the default of ``quantize_activations``. Call it by name in a dict, to make
    exceptions from it.

    Args:
      quantizer: how each operand is quantized; None uses 8 asymmetric bits.

    Returns:
      A policy for ``quantize_activations``, ``execute`` and ``count``.

    Example:
      >>> import jaxcompress as jc
      >>> eight, four = (
      ...     jc.program.ActivationQuantizer(jc.formats.Int(bits)) for bits in (8, 4)
      ... )
      >>> policy = {"Conv_0/*": eight, "*": jc.program.operands_only(four)}
    """
    default = ActivationQuantizer() if quantizer is None else quantizer
    return lambda point: default if point.boundary is Boundary.OPERAND else None


def everywhere(quantizer: ActivationQuantizer | None = None) -> Choose:
    """Policy that quantizes all values that an integer-only runtime stores.

    Use it to simulate hardware without floats. Elsewhere quantize only the operands of
    products, which is the default: the residual stream of a transformer has outliers, so
    its ordinary values round to few levels. See ``quantize_activations`` for the points.

    Args:
      quantizer: how each point is quantized; None uses 8 asymmetric bits.

    Returns:
      A policy for ``quantize_activations``, ``execute`` and ``count``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> fn = lambda params, x: x + jnp.tanh(x @ params["w"])
      >>> params, x = {"w": jnp.eye(3)}, jnp.ones((2, 3))
      >>> sorted(jc.quantize_activations(fn).points(params, x))
      ['w/input']
      >>> all_points = jc.quantize_activations(fn, jc.program.everywhere())
      >>> sorted(all_points.points(params, x))
      ['add', 'add/rhs', 'input/0', 'w/output']
    """
    default = ActivationQuantizer() if quantizer is None else quantizer
    return lambda point: default
