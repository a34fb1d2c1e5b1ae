# SPDX-License-Identifier: Apache-2.0
"""Structured pruning: channels, filters, heads and layers that are really removed."""

from . import budgets, penalties, rankings, scores
from ._blocks import Block, Blocks, block_scores, trace_blocks
from ._compressor import StructuredState, plan_of, structured_pruning
from ._draw import draw
from ._groups import Group, Groups, Member, trace_axes
from ._params import mask_params, slice_params
from ._plan import Plan, PlanError
from ._select import KeptWarning, select
from ._shrink import Verification, shrink, verify

__all__ = [
    "Block",
    "Blocks",
    "Group",
    "Groups",
    "KeptWarning",
    "Member",
    "Plan",
    "PlanError",
    "StructuredState",
    "Verification",
    "block_scores",
    "budgets",
    "draw",
    "mask_params",
    "penalties",
    "plan_of",
    "rankings",
    "scores",
    "select",
    "shrink",
    "slice_params",
    "structured_pruning",
    "trace_axes",
    "trace_blocks",
    "verify",
]
