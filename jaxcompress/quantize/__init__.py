# SPDX-License-Identifier: Apache-2.0
"""Quantization: format, granularity, scale, rounding, gradient. Each can be swapped."""

from ..formats import Format as Format, Int as Int
from ._adaround import adaround as adaround
from ._awq import awq as awq
from ._bias_correction import bias_correction as bias_correction
from ._block_formats import (
    mx_quantization as mx_quantization,
    nvfp4_quantization as nvfp4_quantization,
)
from ._block_scales import power_of_two as power_of_two, two_level as two_level
from ._clipping import Searched as Searched, entropy as entropy, mse as mse
from ._equalize import (
    cross_layer_equalization as cross_layer_equalization,
    smooth_quant as smooth_quant,
)
from ._fake import fake_quant as fake_quant, to_qarray as to_qarray
from ._fold import Fold as Fold, fold_batch_norm as fold_batch_norm
from ._gptq import gptq as gptq
from ._gradients import (
    Gradient as Gradient,
    Rounded as Rounded,
    clipped as clipped,
    pass_through as pass_through,
    polynomial as polynomial,
    soft as soft,
    straight_through as straight_through,
    through_scale as through_scale,
    to_the_bound as to_the_bound,
)
from ._granularity import (
    Granularity as Granularity,
    PerChannel as PerChannel,
    PerGroup as PerGroup,
    PerTensor as PerTensor,
)
from ._hqq import hqq as hqq
from ._kept import (
    AnyScale as AnyScale,
    Held as Held,
    KeptScale as KeptScale,
    Ranges as Ranges,
    as_kept as as_kept,
    as_scale as as_scale,
    blocks as blocks,
    held as held,
)
from ._known import known as known
from ._layer_by_layer import (
    adaround_quantization as adaround_quantization,
    gptq_quantization as gptq_quantization,
)
from ._learned import (
    LearnedScale as LearnedScale,
    lsq as lsq,
    lsq_plus as lsq_plus,
    pact as pact,
)
from ._links import Link as Link
from ._move import MoveState as MoveState
from ._post_training import (
    PostTrainingState as PostTrainingState,
    Solve as Solve,
    post_training as post_training,
)
from ._quantize import (
    LeafState as LeafState,
    quantize as quantize,
    weight_quantization as weight_quantization,
)
from ._ranges import (
    Range as Range,
    dynamic as dynamic,
    minmax as minmax,
    moving_average as moving_average,
    percentile as percentile,
)
from ._reconstruct import reconstruct_block as reconstruct_block
from ._rotate import (
    hadamard as hadamard,
    hadamard_rotation as hadamard_rotation,
)
from ._rounding import (
    Draws as Draws,
    Rounding as Rounding,
    learned as learned,
    stochastic as stochastic,
)
from ._scales import (
    Scale as Scale,
    absmax as absmax,
    mean_above as mean_above,
    of_range as of_range,
    unit as unit,
)
from ._ternary import TernaryState as TernaryState, trained_ternary as trained_ternary
from ._verify import verify_links as verify_links
