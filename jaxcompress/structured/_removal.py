# SPDX-License-Identifier: Apache-2.0
"""What is left of a program without the residual blocks that a plan removes."""

from __future__ import annotations

import jax

from .._select import paths_and_leaves
from ..program.axes import branches, needed
from ..program.trace._graph import Node, Program, Value
from ._params import owner_of
from ._plan import Plan, PlanError


def removal(program: Program, plan: Plan) -> tuple[dict[Node, int], set[Value] | None]:
    """Find the sums that lose an operand, and what is still computed.

    Returns:
      The number of the operand that each such sum passes on, and the values that the
      outputs depend on; None if all are still computed.

    Raises:
      PlanError: if an output depends on a removed leaf.
    """
    if not plan.removed:
        return {}, None
    without = {
        branch.node: 1 - branch.operand
        for branch in branches(program)
        if all(program.paths[i] in plan.removed for i in branch.leaves)
    }
    paths, _, _ = paths_and_leaves(
        jax.tree.unflatten(program.out_tree, program.root.outs)
    )
    outs = [
        value
        for path, value in zip(paths, program.root.outs, strict=True)
        if not mirrors_removed(path, value.aval.shape, plan)
    ]
    read = needed(program, outs, without)
    left = [
        path
        for path, value in zip(program.paths, program.root.ins, strict=False)
        if path in plan.removed and value in read
    ]
    if left:
        raise PlanError(
            f"the function cannot do without {left[0]!r}: it is not part of a residual "
            "block that the plan removes. Make such plans by trace_blocks(...).plan(...). "
            "Statistics that the function returns go with their block if their paths end "
            "like those of the leaves: return all of {'batch_stats': ...}."
        )
    return without, read


def mirrors_removed(path: str, shape: tuple[int, ...], plan: Plan) -> bool:
    """True for an output such as the batch statistics of a removed block."""
    owner = owner_of(path, plan.shapes)
    return owner in plan.removed and shape == plan.shapes[owner]
