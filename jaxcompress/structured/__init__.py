# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: channels, filters, heads and layers that are really removed."""

from ._groups import Group, Groups, Member, trace_axes
from ._params import mask_params, slice_params
from ._plan import Plan, PlanError
from ._shrink import Verification, shrink, verify

__all__ = [
    "Group",
    "Groups",
    "Member",
    "Plan",
    "PlanError",
    "Verification",
    "mask_params",
    "shrink",
    "slice_params",
    "trace_axes",
    "verify",
]
