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
