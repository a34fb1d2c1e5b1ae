# SPDX-License-Identifier: Apache-2.0
"""Depth pruning: residual blocks that can be removed whole."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import check_function, check_kind
from .._names import is_weight_name
from .._select import closest
from .._table import table
from ..program.axes import branches
from ..program.trace._analyze import analyze
from ._params import mask_params
from ._plan import Plan, PlanError, shapes_of


@dataclasses.dataclass(frozen=True)
class Block:
    """A branch of a residual sum, and the parameters that only it reads.

    Attributes:
      name: the common path of its leaves (of Linen's variables, of its weights); the first
        leaf if they have none.
      leaves: paths of its parameters.
      parameters: number of its parameters.
      other: name of the block that the sum is left with, such as a shortcut with a
        convolution; empty if that is not a block. Only one of the two can be removed.
    """

    name: str
    leaves: tuple[str, ...]
    parameters: int
    other: str = ""


class Blocks(Mapping[str, Block]):
    """The residual blocks of a function, by name, in order; prints as a table."""

    def __init__(self, blocks: Iterable[Block], shapes: Mapping[str, tuple[int, ...]]):
        self._blocks = {block.name: block for block in blocks}
        self._shapes = dict(shapes)

    def __getitem__(self, name: str) -> Block:
        return self._blocks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __len__(self) -> int:
        return len(self._blocks)

    def __repr__(self) -> str:
        rows = [("block", "leaves", "parameters")]
        for block in self.values():
            rows.append((block.name, str(len(block.leaves)), f"{block.parameters:,}"))
        return table(rows)

    def plan(self, remove: Iterable[str]) -> Plan:
        """Return the plan without some blocks.

        Join it with a plan for channels by ``|``.

        Args:
          remove: names of blocks.

        Raises:
          PlanError: if there is no such block, or if nothing would be left of a sum.
        """
        names = [remove] if isinstance(remove, str) else list(remove)
        for name in names:
            if name not in self:
                near = ", ".join(map(repr, closest(name, list(self))))
                raise PlanError(f"there is no block {name!r}; closest: {near}")
            if self[name].other in names:
                raise PlanError(
                    f"only one of {name!r} and {self[name].other!r} can be removed: "
                    "nothing else is left of their sum"
                )
        leaves = [path for name in names for path in self[name].leaves]
        return Plan({}, self._shapes, leaves)


def trace_blocks(fn: Callable[..., Any], params: Any, *args: Any) -> Blocks:
    """Find the residual blocks that can be removed, to make a network less deep.

    A block is a branch of a sum that is zero if the block's own parameters are. Without
    it, the sum is its other operand. Layers that are stacked in a scan are no blocks here:
    they are the channels of a group of ``trace_axes``.

    Args:
      fn: ``(params, *args) -> out``, as for ``trace_axes``.
      params: tree of arrays or ``jax.ShapeDtypeStruct``.
      *args: trees of arrays or ``jax.ShapeDtypeStruct``.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"a": {"w": jnp.ones((3, 3))}, "b": {"w": jnp.ones((3, 3))}}
      >>> def fn(params, x):
      ...     for layer in params.values():
      ...         x = x + jnp.tanh(x @ layer["w"])
      ...     return x
      >>> blocks = jc.structured.trace_blocks(fn, params, jnp.ones((2, 3)))
      >>> blocks
      block  leaves  parameters
      a/w         1           9
      b/w         1           9
      >>> plan = blocks.plan(["a/w"])
      >>> small = jc.structured.slice_params(params, plan)
      >>> jc.shrink(fn, plan)(small, jnp.zeros((2, 3))).shape
      (2, 3)

    References:
      Men et al., 2024, "ShortGPT", https://arxiv.org/abs/2403.03853
    """
    check_function(fn, "trace_blocks(fn, params, *args)")
    program = analyze(fn, params, args)
    shapes = shapes_of(params)
    blocks: dict[str, Block] = {}
    of_sum: dict[Any, str] = {}
    for branch in branches(program):
        leaves = tuple(program.paths[i] for i in sorted(branch.leaves))
        count = sum(program.leaves[i].size for i in branch.leaves)
        base = name = _common_path(leaves, shapes) or leaves[0]
        number = 1
        while name in blocks:
            number += 1
            name = f"{base}#{number}"
        other = of_sum.setdefault(branch.node, name)
        blocks[name] = Block(name, leaves, count, "" if other == name else other)
        if other != name:
            blocks[other] = dataclasses.replace(blocks[other], other=name)
    return Blocks(blocks.values(), shapes)


def _common_path(leaves: Sequence[str], shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Return the path that leaves share, in the collection (Linen's) of the weights."""
    weights = [path for path in leaves if is_weight_name(path, len(shapes[path]))]
    top = (weights or leaves)[0].split("/")[0]
    return os.path.commonpath([path for path in leaves if path.split("/")[0] == top])


def block_scores(
    fn: Callable[..., Any], params: Any, blocks: Blocks, *args: Any
) -> dict[str, float]:
    """Score each block by how much the output changes without it.

    Returns:
      The mean squared change, relative to the mean square of the output, by block. Remove
      the lowest first, and score again: blocks stand in for each other.
    """
    call = "block_scores(fn, params, blocks, *args)"
    check_function(fn, call)
    check_kind(blocks, Blocks, call, "the result of trace_blocks")
    run = jax.jit(fn)
    whole = jax.tree.leaves(run(params, *args))

    def change(name: str) -> float:
        masked = mask_params(params, blocks.plan([name]))
        outs = jax.tree.leaves(run(masked, *args))
        squares = sum(jnp.square(a - b).sum() for a, b in zip(outs, whole, strict=True))
        return float(squares / sum(jnp.square(b).sum() for b in whole))

    return {name: change(name) for name in blocks}
