# SPDX-License-Identifier: Apache-2.0
"""The bridge: see and rewrite any traced program, of any framework."""

from ._activations import (
    ActivationQuantizer as ActivationQuantizer,
    PointState as PointState,
    Policy as Policy,
    QuantizedFunction as QuantizedFunction,
    operands_only as operands_only,
    quantize_activations as quantize_activations,
)
from ._boundaries import Boundary as Boundary, Point as Point
from ._count import Count as Count, SiteCount as SiteCount, count as count
from ._execute import (
    Execution as Execution,
    Measured as Measured,
    execute as execute,
    measured as measured,
)
from ._find import (
    ClosedOverWarning as ClosedOverWarning,
    OpaqueWarning as OpaqueWarning,
)
from ._integer_forward import (
    IntegerForward as IntegerForward,
    integer_forward as integer_forward,
)
from ._observe import Observer as Observer, observe as observe, observing as observing
from ._products import Pays as Pays, always as always, large as large
from ._rewrite import Rule as Rule, rewrite as rewrite, stacked as stacked
from ._site import Opaque as Opaque, Site as Site, Sites as Sites
from ._sites import sites as sites
from ._statistics import (
    Gram as Gram,
    Magnitudes as Magnitudes,
    Moments as Moments,
    Statistic as Statistic,
    absmax as absmax,
    gram as gram,
    magnitudes as magnitudes,
    moments as moments,
)
from ._steps import FloatWarning as FloatWarning, Step as Step, Steps as Steps
from ._taps import Select as Select, tap_names as tap_names, taps as taps
from ._weight_axes import WeightAxes as WeightAxes, weight_axes as weight_axes
