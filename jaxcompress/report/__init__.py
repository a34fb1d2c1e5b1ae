# SPDX-License-Identifier: Apache-2.0
"""Report the quality, size, speed, energy and provenance of a model.

What is not measured is labelled: operations are counted, and the energy of an operation
model has a type and columns of its own.
"""

from ._compare import Verdict, compare
from ._counter import Counter, energy
from ._energy import Energy
from ._energy_model import EnergyModel, EnergyParts, energy_model
from ._entropy import bound_bytes, code_entropy
from ._exported_latency import exported_latency
from ._latency import Latency, latency
from ._markdown import markdown
from ._memory import Memory, memory
from ._metric import Metric, accuracy, bits_per_character, loss, perplexity
from ._page import html, plot
from ._provenance import Provenance, provenance
from ._record import Record, load_records, save_records
from ._size import LeafSize, Size, size

__all__ = [
    "Counter",
    "Energy",
    "EnergyModel",
    "EnergyParts",
    "Latency",
    "LeafSize",
    "Memory",
    "Metric",
    "Provenance",
    "Record",
    "Size",
    "Verdict",
    "accuracy",
    "bits_per_character",
    "bound_bytes",
    "code_entropy",
    "compare",
    "energy",
    "energy_model",
    "exported_latency",
    "html",
    "latency",
    "load_records",
    "loss",
    "markdown",
    "memory",
    "perplexity",
    "plot",
    "provenance",
    "save_records",
    "size",
]
