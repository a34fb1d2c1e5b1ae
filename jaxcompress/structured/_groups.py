# SPDX-License-Identifier: Apache-2.0
"""Groups of channels that can only be pruned together, found in a traced program."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._arguments import check_function, check_kind
from .._names import is_weight_name
from .._table import table
from ..leaves import is_leaf
from ..program.axes import (
    Axis,
    AxisGraph,
    Kept,
    Products,
    attention_roles,
    check_sums,
    indices,
)
from ..program.trace._analyze import analyze
from ._plan import Plan, PlanError, shapes_of
from ._removal import removal


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """One axis of one leaf that takes part in a group.

    Attributes:
      leaf: path of the leaf.
      axis: axis of the leaf.
      index: int [n], for every index along the axis the channel of the group that it
        belongs to; -1 where it belongs to none. A flattened image, for instance, repeats
        its channels.
    """

    leaf: str
    axis: int
    index: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Channels that exist in several leaves at once and can only be pruned together.

    Attributes:
      name: the leaf and axis that the group is named after.
      size: number of channels. The channels of a group norm are counted in whole norm
        groups, and in the channels of each norm group; those of attention in heads, and
        in the features of each head.
      members: every leaf and axis that has these channels.
      frozen: why they cannot be pruned; empty if they can.
      role: ``"heads"``, ``"queries of a head"``, ``"query-key"`` or ``"values"`` in
        attention; otherwise empty.
      reductions: operations that sum over the channels. Pruning stays exact, since only
        zeros are missing from the sum, but a module that is rebuilt at the new width may
        compute a mean over another count.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    frozen: tuple[str, ...]
    reductions: tuple[str, ...]
    role: str = ""

    @property
    def indices(self) -> np.ndarray:
        """Indices of one channel along the axis that the group is named after."""
        places = ((f"{m.leaf}[{m.axis}]", m.index) for m in self.members)
        own = (i for place, i in places if f"{self.name}#".startswith(f"{place}#"))
        return np.flatnonzero(next(own) == 0)

    @property
    def leaves(self) -> tuple[str, ...]:
        """Paths of the leaves, each once."""
        return tuple(dict.fromkeys(member.leaf for member in self.members))


class Groups(Mapping[str, Group]):
    """The groups of a function's parameters, by name; prints as a table.

    Attributes:
      shapes: shape of every leaf.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Group, Axis]],
        graph: AxisGraph,
        shapes: Mapping[str, tuple[int, ...]],
    ):
        self._groups = {group.name: group for group, _ in groups}
        self._axes = {group.name: axis for group, axis in groups}
        self._graph = graph
        self._products = Products(graph)
        self.shapes = dict(shapes)

    def __getitem__(self, name: str) -> Group:
        return self._groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._groups)

    def __len__(self) -> int:
        return len(self._groups)

    def __repr__(self) -> str:
        groups = self.prunable.values()
        columns = {
            "group": [group.name for group in groups],
            "channels": [str(group.size) for group in groups],
            "indices of each": [_spread(group) for group in groups],
            "leaves": [str(len(group.leaves)) for group in groups],
            "sums": [str(len(group.reductions) or "-") for group in groups],
            "role": [group.role or "-" for group in groups],
        }
        for name in ("indices of each", "role"):
            if set(columns[name]) <= {"-"}:
                del columns[name]
        rows = [tuple(columns), *zip(*columns.values(), strict=True)]
        frozen: dict[str, list[str]] = {}
        for group in self.values():
            if group.frozen:
                frozen.setdefault(_short(group.frozen), []).append(group.name)
        lines = [
            f"frozen, {why}: {', '.join(names[:3])}"
            + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            for why, names in frozen.items()
        ]
        return "\n".join([table(rows), *lines])

    @property
    def prunable(self) -> dict[str, Group]:
        """The groups that are not frozen."""
        return {name: group for name, group in self.items() if not group.frozen}

    def plan(self, masks: Mapping[str, Any]) -> Plan:
        """Return the plan that keeps the given channels.

        Args:
          masks: bool [size] by group name; groups that are not named keep everything.

        Raises:
          PlanError: if a group is unknown or frozen, or a mask does not fit.
        """
        if isinstance(masks, Plan):
            raise TypeError("groups.plan(masks) takes masks by group, got a Plan")
        return self._plan(self._kept(masks))

    def macs(self, masks: Plan | Mapping[str, Any] | None = None) -> int:
        """Return the multiply-accumulates of one call of the traced function.

        Args:
          masks: a plan, or bool [size] by group name; None for the unpruned function.
        """
        read = None
        if isinstance(masks, Plan):
            _, read = removal(self._graph.program, masks)
        return self._products.macs(self._kept({} if masks is None else masks), read)

    def parameters(self, masks: Plan | Mapping[str, Any] | None = None) -> int:
        """Return the number of parameters; arguments as for ``macs``."""
        kept = self._kept({} if masks is None else masks)
        removed = masks.removed if isinstance(masks, Plan) else ()
        return sum(
            math.prod(map(kept.size, axes))
            for path, axes in zip(self.shapes, self._graph.params, strict=True)
            if path not in removed
        )

    def check(self, params: Any) -> None:
        """Raise a ``PlanError`` if parameters are not those of the groups."""
        if shapes_of(params) != self.shapes:
            raise PlanError(
                "the parameters are not those that trace_axes got: their paths or shapes "
                "differ"
            )

    def _kept(self, masks: Plan | Mapping[str, Any]) -> Kept:
        check_kind(masks, Mapping, "groups.plan(masks)", "bool arrays by group")
        kept = Kept()
        if isinstance(masks, Plan):
            return self._kept_by(masks)
        for name, values in masks.items():
            mask, group = np.asarray(values), self._groups.get(name)
            if group is None:
                raise PlanError(f"there is no group {name!r}; see the printed groups")
            if mask.shape != (group.size,) or mask.dtype != bool:
                raise PlanError(
                    f"the mask of group {name!r} must be bool [{group.size}], got "
                    f"{mask.dtype} {list(mask.shape)}"
                )
            if not mask.all() and group.frozen:
                raise PlanError(f"group {name!r} is frozen: {'; '.join(group.frozen)}")
            if not mask.any():
                raise PlanError(f"group {name!r} must keep at least one channel")
            kept.set(self._axes[name], mask)
        return kept

    def _kept_by(self, plan: Plan) -> Kept:
        if plan.shapes != self.shapes:
            raise PlanError("the plan is for parameters of other paths or shapes")
        kept, axes = Kept(), self._graph.by_leaf()
        for key, mask in plan.items():
            kept.set(axes[key], mask)
        return kept

    def _plan(self, kept: Kept) -> Plan:
        masks = {key: kept.mask(axis) for key, axis in self._graph.by_leaf().items()}
        return Plan(masks, self.shapes)


def trace_axes(fn: Callable[..., Any], params: Any, *args: Any) -> Groups:
    """Find which channels of a network can be pruned, and what has to go with them.

    Removing a channel touches the kernel that computes it, its bias and norm, everything
    that it is added to, and every kernel that reads it. This is read from the traced
    program, so it works for any framework and needs no hints. A group is either exact
    (with its channels removed, the network computes what it computes with them set to
    zero) or frozen, with the reason.

    Trace the network in evaluation mode (``train=False``, ``use_running_average=True``,
    ``model.eval()``): dropout and running statistics that it returns freeze the channels
    that they meet. Pass everything that has channels as ``params``: for Linen with batch
    norm, all variables. What is in ``args`` is data, and keeps its shape. The plan also
    fits the function in training mode.

    Args:
      fn: ``(params, *args) -> out``; see ``jc.sites``.
      params: tree of arrays or ``jax.ShapeDtypeStruct``.
      *args: trees of arrays or ``jax.ShapeDtypeStruct``.

    Returns:
      The groups, by name.

    Example:
      >>> import jax.numpy as jnp, jaxcompress as jc
      >>> params = {"up": jnp.ones((3, 8)), "down": jnp.ones((8, 2))}
      >>> def fn(params, x):
      ...     return jnp.maximum(x @ params["up"], 0) @ params["down"]
      >>> jc.trace_axes(fn, params, jnp.ones((4, 3)))
      group  channels  leaves  sums
      up[1]         8       2     -
      frozen, an output of the network: down[1]
      frozen, an input of the network: up[0]

    References:
      Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023.
    """
    check_function(fn, "trace_axes(fn, params, *args)")
    packed = [x for x in jax.tree.leaves(params, is_leaf=is_leaf) if is_leaf(x)]
    if packed:
        raise TypeError(
            "trace_axes(fn, params, *args) takes arrays or shapes, got packed parameters "
            f"({type(packed[0]).__name__}). Prune first, then quantize and pack."
        )
    graph = AxisGraph(analyze(fn, params, args))
    sums, roles = check_sums(graph), attention_roles(graph)
    program = graph.program
    members: dict[Axis, list[Member]] = {}
    for path, axes in zip(program.paths, graph.params, strict=True):
        for i, axis in enumerate(axes):
            for atom, index in indices(axis):
                members.setdefault(atom, []).append(Member(path, i, index))
    shapes = {
        path: tuple(leaf.shape)
        for path, leaf in zip(program.paths, program.leaves, strict=True)
    }
    groups, taken = [], set()
    for atom, own in members.items():
        if atom.size < 2:
            continue
        name = _name(own, shapes, taken)
        notes = tuple(sums.get(atom, ()))
        reasons, role = tuple(atom.reasons), roles.get(atom, "")
        group = Group(name, atom.size, tuple(own), reasons, notes, role)
        groups.append((group, atom))
    return Groups(groups, graph, shapes)


def _spread(group: Group) -> str:
    """Say how the indices of one channel lie along an axis, if there are several."""
    own = group.indices
    if len(own) == 1:
        return "-"
    steps = set(np.diff(own))
    if steps == {1}:
        return f"{len(own)} in a row"
    return f"1 of every {group.size}" if steps == {group.size} else str(len(own))


def check_groups(groups: Any, call: str) -> None:
    """Raise a ``TypeError`` if an argument is not ``Groups``; ``call`` names the order."""
    check_kind(groups, Groups, call, "the result of trace_axes")


def _short(reasons: Sequence[str]) -> str:
    """Return the first reason, without its place in the program."""
    return reasons[0].partition(" (")[0]


def _name(
    members: Sequence[Member], shapes: Mapping[str, tuple[int, ...]], taken: set[str]
) -> str:
    """Name a group after the kernel that makes it: its last axis, if there is one."""

    def rank(member: Member) -> tuple[bool, bool]:
        shape = shapes[member.leaf]
        is_kernel = len(shape) > 1 and is_weight_name(member.leaf, len(shape))
        return not is_kernel, member.axis != len(shape) - 1

    member = min(members, key=rank)
    base = name = f"{member.leaf}[{member.axis}]"
    count = 1
    while name in taken:
        count += 1
        name = f"{base}#{count}"
    taken.add(name)
    return name
