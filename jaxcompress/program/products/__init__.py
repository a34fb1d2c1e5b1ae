# SPDX-License-Identifier: Apache-2.0
"""Sites: find and name the products of a program."""

from ._find import ClosedOverWarning, OpaqueWarning
from ._list import sites
from ._site import Opaque, Site, Sites
from ._weight_axes import WeightAxes, weight_axes

__all__ = [
    "ClosedOverWarning",
    "Opaque",
    "OpaqueWarning",
    "Site",
    "Sites",
    "WeightAxes",
    "sites",
    "weight_axes",
]
