# SPDX-License-Identifier: Apache-2.0
"""Export to the runtimes of phones, PCs and servers, with the scales of training."""

from . import targets
from ._api import litert, onnx, stablehlo
from ._errors import ExportError, Mismatch, UnsupportedOperation
from ._exported import Check, Exported
from ._run import load, run

__all__ = [
    "Check",
    "ExportError",
    "Exported",
    "Mismatch",
    "UnsupportedOperation",
    "litert",
    "load",
    "onnx",
    "run",
    "stablehlo",
    "targets",
]
