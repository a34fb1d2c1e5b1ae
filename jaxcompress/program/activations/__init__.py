# SPDX-License-Identifier: Apache-2.0
"""Activation quantization: choose the values to quantize, and round them."""

from ._boundaries import Boundary, Point
from ._check_range import RangeWarning
from ._plan import ArgumentWarning
from ._quantize import QuantizedFunction, quantize_activations
from ._quantizer import (
    ActivationQuantizer,
    PointState,
    Policy,
    everywhere,
    operands_only,
)

__all__ = [
    "ActivationQuantizer",
    "ArgumentWarning",
    "Boundary",
    "Point",
    "PointState",
    "Policy",
    "QuantizedFunction",
    "RangeWarning",
    "everywhere",
    "operands_only",
    "quantize_activations",
]
