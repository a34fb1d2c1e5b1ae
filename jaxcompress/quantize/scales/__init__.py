# SPDX-License-Identifier: Apache-2.0
"""Choose quantization scales: the step between two levels of a number format."""

from ._block import power_of_two, two_level
from ._calls import Call, largest
from ._fixed import fixed
from ._following import Scale, absmax, mean_above, of_range, rms, unit
from ._learned import LearnedScaleState, lsq, lsq_plus, pact
from ._log_step import log_step
from ._ranges import Range, dynamic, minmax, moving_average, percentile
from ._searched import SearchedState, entropy, mse
from ._stateful import (
    AnyScale,
    HeldState,
    Ranges,
    StatefulScale,
    as_scale,
    as_stateful,
    blocks,
    held,
    suited,
)

__all__ = [
    "AnyScale",
    "Call",
    "HeldState",
    "StatefulScale",
    "LearnedScaleState",
    "Range",
    "Ranges",
    "Scale",
    "SearchedState",
    "absmax",
    "as_stateful",
    "as_scale",
    "blocks",
    "dynamic",
    "entropy",
    "held",
    "fixed",
    "largest",
    "log_step",
    "lsq",
    "lsq_plus",
    "mean_above",
    "minmax",
    "moving_average",
    "mse",
    "of_range",
    "pact",
    "percentile",
    "power_of_two",
    "rms",
    "suited",
    "two_level",
    "unit",
]
