# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: choose the values to quantize, and round them."""

from ._boundaries import Boundary, Point
from ._quantize import (
    ActivationQuantizer,
    PointState,
    Policy,
    QuantizedFunction,
    operands_only,
    quantize_activations,
)

__all__ = [
    "ActivationQuantizer",
    "Boundary",
    "Point",
    "PointState",
    "Policy",
    "QuantizedFunction",
    "operands_only",
    "quantize_activations",
]
