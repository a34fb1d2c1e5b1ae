# SPDX-License-Identifier: Apache-2.0
"""Brevitas, by its layers in place of those of PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from . import _in_torch
from ._work import Layers, Predict, Trained, Work

_WEIGHTS = {"": "Int8WeightPerChannelFloat", ", mse": "Int8WeightPerChannelFloatMSE"}


def rounded(layers: Layers, bits: int) -> Mapping[str, Predict]:
    """Round weights after training, with scales by default and by least squares."""
    return {
        name: _in_torch.predict(_network(layers, weights, bits))
        for name, weights in _WEIGHTS.items()
    }


def trained(work: Work, bits: int) -> Mapping[str, Trained]:
    """Train with rounded weights."""
    return {"": _in_torch.trained(work, _network(work.layers, _WEIGHTS[""], bits))}


def served(work: Work) -> Mapping[str, Predict]:
    """Simulate 8 bits, with calibrated ranges."""
    inputs = _quantizers().Int8ActPerTensorFloat
    model = _network(work.layers, _WEIGHTS[""], 8, input_quant=inputs)
    calibrate = importlib.import_module("brevitas.graph.calibrate")
    torch = _in_torch.torch()
    model.eval()  # before, since calibration changes the mode of what observes
    with torch.no_grad(), calibrate.calibration_mode(model):
        model(torch.tensor(work.calibration))
    return {", int8 simulated": _in_torch.predict(model)}


def _network(layers: Layers, weights: str, bits: int, **options: Any) -> Any:
    graph = importlib.import_module("brevitas.graph.quantize")
    nn = importlib.import_module("brevitas.nn")
    options |= {
        "weight_quant": getattr(_quantizers(), weights),
        "weight_bit_width": bits,
    }
    linear = _in_torch.torch().nn.Linear
    return graph.layerwise_quantize(
        _in_torch.network(layers), {linear: (nn.QuantLinear, options)}
    )


def _quantizers() -> Any:
    return importlib.import_module("brevitas.quant")
