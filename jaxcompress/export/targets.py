# SPDX-License-Identifier: Apache-2.0
"""Targets: what each runtime stores as integers, so that training simulates just that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ..formats import Int
from ..program import ActivationQuantizer, Point, Policy

__all__ = ["FixedGrid", "Target", "litert", "onnxruntime", "openvino"]

_EIGHT = Int(8, symmetric=False)

# Scale and zero point of the results of functions, of which LiteRT has tables.
LITERT_GRIDS = {
    "logistic": (1 / 256, 0),
    "softmax": (1 / 256, 0),
    "tanh": (1 / 128, 128),
}


@dataclasses.dataclass(frozen=True)
class FixedGrid:
    """A scale and zero point that a runtime prescribes, whatever the values."""

    scale: float
    zero_point: int

    def __call__(self, values: jax.Array, shape: Any, fmt: Any) -> tuple[Any, Any]:
        """Return the scale and zero point for values."""
        del fmt
        return jnp.full(shape, self.scale), jnp.full(shape, float(self.zero_point))


def _as_stored(point: Point) -> ActivationQuantizer | None:
    """Quantize everything that integer runtimes store, so that one training serves all.

    Attention scores, their softmax and what it mixes stay floats: LiteRT's integer
    products of two activations take longer than its float ones, and a mask of -inf has no
    integer. Some functions have tables of their results, on grids of their own.
    """
    between_data = point.site is not None and point.site.weight is None
    if between_data or point.made_by == "softmax":
        return None
    if point.made_by in LITERT_GRIDS:
        return ActivationQuantizer(_EIGHT, FixedGrid(*LITERT_GRIDS[point.made_by]))
    return ActivationQuantizer(_EIGHT)


@dataclasses.dataclass(frozen=True, repr=False)
class Target:
    """A runtime's demands on quantization.

    Attributes:
      name: name of the runtime.
      policy: the activation policy for ``quantize_activations``: which values the runtime
        stores, and in which format.
      weights: bits of weights that the runtime stores, with what they gain.
      zero_points: whether weights may have a zero point.
    """

    name: str
    policy: Policy
    weights: Mapping[int, str]
    zero_points: bool

    def __repr__(self) -> str:
        return f"Target({self.name!r})"

    def differences(
        self, points: Mapping[str, tuple[Any, ActivationQuantizer]]
    ) -> list[str]:
        """Return what of some quantized points the runtime would do otherwise.

        Args:
          points: quantized points by name, from ``QuantizedFunction.points``.
        """
        differences = []
        for name, (_, quantizer) in points.items():
            if (said := self.difference(quantizer)) is not None:
                differences.append(f"{name}: {said}")
        return differences

    def difference(self, quantizer: ActivationQuantizer) -> str | None:
        """Return what of one quantizer the runtime would do otherwise; None if nothing."""
        fmt = quantizer.fmt
        if not isinstance(fmt, Int) or fmt.traced:
            return f"{self.name} stores 8-bit integers, not {fmt}"
        if fmt.bits != 8:
            return f"{self.name} stores activations of 8 bits, not {fmt.bits}"
        if fmt.high - fmt.low != 255:
            return (
                f"{self.name} has 256 codes, {fmt} has {int(fmt.high - fmt.low) + 1}, so "
                "clipped values differ by one step; use Int(8, symmetric=False)"
            )
        return None


litert = Target(
    "LiteRT",
    _as_stored,
    {8: "smaller and faster", 4: "smaller; as fast as 8 in dense layers only"},
    zero_points=False,
)
"""Phones and small devices (``export.litert``): everything stored is an integer."""

onnxruntime = Target(
    "ONNX Runtime",
    _as_stored,
    {8: "smaller and faster", 4: "smaller"},
    zero_points=True,
)
"""PCs and servers (``export.onnx``): unsigned activations with a zero point."""

openvino = Target(
    "OpenVINO",
    _as_stored,
    {8: "smaller and faster", 4: "smaller"},
    zero_points=True,
)
"""Intel PCs and servers (``export.onnx``, read by OpenVINO)."""
