# SPDX-License-Identifier: Apache-2.0
"""Inspect and rewrite any JAX function through its traced program, in any framework."""

from . import statistics
from ._count import Count, SiteCount, count
from ._find_couplings import Couplings, find_couplings
from ._find_folds import Folds, find_folds
from ._find_links import Links, find_links
from ._observe import Observer, observe, observing
from ._rewrite import Rule, rewrite, stacked
from ._taps import Select, tap_names, taps
from .activations import (
    ActivationQuantizer,
    ArgumentWarning,
    Boundary,
    Point,
    PointState,
    Policy,
    QuantizedFunction,
    RangeWarning,
    everywhere,
    operands_only,
    quantize_activations,
)
from .integers import (
    Execution,
    FloatWarning,
    IntegerForward,
    Measured,
    Pays,
    Step,
    Steps,
    always,
    execute,
    integer_forward,
    large,
    measured,
)
from .products import (
    ClosedOverWarning,
    Opaque,
    OpaqueWarning,
    Site,
    Sites,
    WeightAxes,
    sites,
    weight_axes,
)

__all__ = [
    "ActivationQuantizer",
    "ArgumentWarning",
    "Boundary",
    "ClosedOverWarning",
    "Count",
    "Couplings",
    "Execution",
    "FloatWarning",
    "Folds",
    "IntegerForward",
    "Links",
    "Measured",
    "Observer",
    "Opaque",
    "OpaqueWarning",
    "Pays",
    "Point",
    "PointState",
    "Policy",
    "QuantizedFunction",
    "RangeWarning",
    "Rule",
    "Select",
    "Site",
    "SiteCount",
    "Sites",
    "Step",
    "Steps",
    "WeightAxes",
    "always",
    "count",
    "execute",
    "find_couplings",
    "find_folds",
    "find_links",
    "integer_forward",
    "large",
    "measured",
    "observe",
    "observing",
    "everywhere",
    "operands_only",
    "quantize_activations",
    "rewrite",
    "sites",
    "stacked",
    "statistics",
    "tap_names",
    "taps",
    "weight_axes",
]
