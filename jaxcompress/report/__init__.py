# SPDX-License-Identifier: Apache-2.0
"""Reports: accuracy, size, speed and provenance of a model, each measured or absent."""

from ._entropy import bound_bytes as bound_bytes, entropy as entropy
from ._latency import Latency as Latency, latency as latency
from ._markdown import markdown as markdown
from ._provenance import Provenance as Provenance, provenance as provenance
from ._record import Accuracy as Accuracy, Energy as Energy, Record as Record
from ._size import LeafSize as LeafSize, Size as Size, size as size
