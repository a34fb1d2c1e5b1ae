# SPDX-License-Identifier: Apache-2.0
"""Report the accuracy, size, speed and provenance of a model; nothing is estimated."""

from ._entropy import bound_bytes, code_entropy
from ._latency import Latency, latency
from ._markdown import markdown
from ._provenance import Provenance, provenance
from ._record import Accuracy, Energy, Record
from ._size import LeafSize, Size, size

__all__ = [
    "Accuracy",
    "Energy",
    "Latency",
    "LeafSize",
    "Provenance",
    "Record",
    "Size",
    "bound_bytes",
    "code_entropy",
    "latency",
    "markdown",
    "provenance",
    "size",
]
