# SPDX-License-Identifier: Apache-2.0
"""Run the products of compressed models on integers."""

from ._choose import Pays, always, large
from ._execute import Execution, execute
from ._forward import IntegerForward, integer_forward
from ._measure import Measured, measured
from ._steps import FloatWarning, Step, Steps

__all__ = [
    "Execution",
    "FloatWarning",
    "IntegerForward",
    "Measured",
    "Pays",
    "Step",
    "Steps",
    "always",
    "execute",
    "integer_forward",
    "large",
    "measured",
]
