# SPDX-License-Identifier: Apache-2.0
"""LiteRT: .tflite files for phones and small devices."""

from .._backend import Backend
from ._convert import convert
from ._runtime import load, operators

LITERT = Backend("LiteRT", ".tflite", False, convert, load, operators)

__all__ = ["LITERT"]
