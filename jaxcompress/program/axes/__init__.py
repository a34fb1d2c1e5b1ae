# SPDX-License-Identifier: Apache-2.0
"""Which axes of a program must be pruned together, and the program without them."""

from ._attention import attention_roles
from ._axis import Axis, atoms, freeze, indices
from ._branches import Branch, branches, needed
from ._cost import Products
from ._kept import Conflict, Kept, Mask
from ._link import AxisGraph
from ._replay import Replay
from ._zeros import check_sums

__all__ = [
    "Axis",
    "AxisGraph",
    "Branch",
    "Conflict",
    "Kept",
    "Mask",
    "Products",
    "Replay",
    "atoms",
    "attention_roles",
    "branches",
    "check_sums",
    "freeze",
    "indices",
    "needed",
]
