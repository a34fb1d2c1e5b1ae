# SPDX-License-Identifier: Apache-2.0
"""Post-training quantization: layer-by-layer solvers and the compressors built on them."""

from ._adaround import adaround
from ._bias_correction import bias_correction
from ._block_reconstruction import reconstruct_block
from ._compressors import adaround_quantization, gptq_quantization
from ._gptq import gptq
from ._hqq import hqq
from ._layerwise import LayerwiseState, Solve, layerwise_quantization

__all__ = [
    "LayerwiseState",
    "Solve",
    "adaround",
    "adaround_quantization",
    "bias_correction",
    "gptq",
    "gptq_quantization",
    "hqq",
    "layerwise_quantization",
    "reconstruct_block",
]
