# SPDX-License-Identifier: Apache-2.0
"""Intel Neural Compressor, for Keras on JAX."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ._work import Predict, Work

_TYPES = {"int8": "int8", "FP8": "fp8_e4m3"}


def served(work: Work) -> Mapping[str, Predict]:
    """Quantize weights per channel and activations, calibrated."""
    os.environ.setdefault("KERAS_BACKEND", "jax")  # which Keras reads once
    keras = importlib.import_module("keras")
    logging.getLogger("neural_compressor").setLevel(logging.WARNING)
    library = importlib.import_module("neural_compressor.jax")
    made = {}
    for name, dtype in _TYPES.items():
        config = library.StaticQuantConfig(
            weight_dtype=dtype,
            activation_dtype=dtype,
            weight_scale_granularity="per_channel",
        )
        quantized = library.quantize_model(
            _network(keras, work), config, lambda model: model(work.calibration)
        )
        made[f", {name}"] = _compiled(quantized)
    return made


def _compiled(model: Any) -> Predict:
    run = jax.jit(lambda x: model(x, training=False))
    return lambda x: run(np.asarray(x))


def _network(keras: Any, work: Work) -> Any:
    *hidden, last = (len(bias) for _, bias in work.layers)
    dense = [keras.layers.Dense(width, activation="relu") for width in hidden]
    pixels = len(work.layers[0][0])
    model = keras.Sequential([keras.Input((pixels,)), *dense, keras.layers.Dense(last)])
    for layer, (kernel, bias) in zip(model.layers, work.layers, strict=True):
        layer.set_weights([kernel, bias])
    return model
