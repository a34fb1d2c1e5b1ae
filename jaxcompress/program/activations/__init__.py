# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: where values are stored, and their rounding."""

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
