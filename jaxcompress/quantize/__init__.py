# SPDX-License-Identifier: Apache-2.0
"""Quantization: compressors, and the scales, gradients and roundings they take."""

from . import equivalent, gradients, post_training, rounding, scales
from ._block_formats import mx_quantization, nvfp4_quantization
from ._fake import fake_quant, to_qarray
from ._granularity import Granularity, PerChannel, PerGroup, PerTensor
from ._quantize import LeafState, quantize, weight_quantization
from ._ternary import TernaryState, trained_ternary
from .equivalent import (
    awq,
    cross_layer_equalization,
    fold_batch_norm,
    hadamard_rotation,
    smooth_quant,
)
from .post_training import (
    adaround_quantization,
    bias_correction,
    gptq_quantization,
    layerwise_quantization,
)

__all__ = [
    "Granularity",
    "LeafState",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "TernaryState",
    "adaround_quantization",
    "awq",
    "bias_correction",
    "cross_layer_equalization",
    "equivalent",
    "fake_quant",
    "fold_batch_norm",
    "gptq_quantization",
    "gradients",
    "hadamard_rotation",
    "layerwise_quantization",
    "mx_quantization",
    "nvfp4_quantization",
    "post_training",
    "quantize",
    "rounding",
    "scales",
    "smooth_quant",
    "to_qarray",
    "trained_ternary",
    "weight_quantization",
]
