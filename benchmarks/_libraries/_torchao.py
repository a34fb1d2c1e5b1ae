# SPDX-License-Identifier: Apache-2.0
"""torchao, by its configurations for models in place."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from . import _in_torch
from ._work import Layers, Predict, Trained, Work


def rounded(layers: Layers, bits: int) -> Mapping[str, Predict]:
    """Round weights after training, with a scale for each output."""
    library, model = _library(), _in_torch.network(layers)
    dtype = getattr(_in_torch.torch(), f"int{bits}")
    library.quantize_(model, library.IntxWeightOnlyConfig(weight_dtype=dtype))
    return {"": _in_torch.predict(model)}


def trained(work: Work, bits: int) -> Mapping[str, Trained]:
    """Train with rounded weights."""
    qat = importlib.import_module("torchao.quantization.qat")
    dtype = getattr(_in_torch.torch(), f"int{bits}")
    weights = qat.IntxFakeQuantizeConfig(dtype, "per_channel")
    model = _in_torch.network(work.layers)
    _library().quantize_(model, qat.QATConfig(weight_config=weights, step="prepare"))
    return {"": _in_torch.trained(work, model)}


def served(work: Work) -> Mapping[str, Predict]:
    """Multiply integers, with ranges found on the fly, compiled as its authors say."""
    library, model = _library(), _in_torch.network(work.layers)
    library.quantize_(model, library.Int8DynamicActivationInt8WeightConfig())
    if not work.quick:  # compiling takes a minute
        model = _in_torch.torch().compile(model)
    return {", int8 products": _in_torch.predict(model)}


def _library() -> Any:
    return importlib.import_module("torchao.quantization")
