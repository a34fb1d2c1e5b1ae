# SPDX-License-Identifier: Apache-2.0
"""Quantization: format, granularity, scale."""

from ._fake import fake_quant as fake_quant, to_qarray as to_qarray
from ._formats import Int as Int
from ._granularity import (
    Granularity as Granularity,
    PerChannel as PerChannel,
    PerGroup as PerGroup,
    PerTensor as PerTensor,
)
from ._quantize import quantize as quantize, weight_quantization as weight_quantization
from ._scales import Scale as Scale, absmax as absmax, of_range as of_range
