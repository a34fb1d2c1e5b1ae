# SPDX-License-Identifier: Apache-2.0
"""Apply a plan to trees of arrays: set channels to zero, or remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import NamedSharding, PartitionSpec

from .._mesh import on_any_mesh
from .._select import paths_and_leaves
from .._types import PyTree
from ._plan import Plan, PlanError, check_plan


@on_any_mesh
def mask_params(tree: PyTree, plan: Plan) -> PyTree:
    """Set the channels that a plan removes to zero, in every leaf that has them.

    The result computes what ``slice_params`` and ``shrink`` compute, at full size. It is
    differentiable and works under ``jit``.

    Args:
      tree: the parameters, or a tree that mirrors them, such as optimizer state.
      plan: the plan.

    Raises:
      PlanError: if the tree does not have the plan's leaves, or other shapes.
    """
    check_plan(plan, "mask_params(params, plan)")
    return _map(tree, plan, mask_leaf, lambda leaf: jnp.zeros_like(leaf))


@on_any_mesh
def slice_params(tree: PyTree, plan: Plan) -> PyTree:
    """Remove the channels that a plan removes, in every leaf that has them.

    Optimizer state and model state shrink the same way: an array belongs to a parameter
    if its path ends with the parameter's path and the shapes agree. A part of the
    parameters (``variables["batch_stats"]``) can be passed alone.

    Args:
      tree: the parameters, a part of them, or a tree that mirrors them.
      plan: the plan.

    Returns:
      The tree, with smaller arrays. Arrays on a mesh keep their sharding along every axis
      that it still divides.

    Raises:
      PlanError: if the tree does not have the plan's leaves, or other shapes.

    Example:
      >>> import jax.numpy as jnp, numpy as np, optax, jaxcompress as jc
      >>> params = {"kernel": jnp.ones((4, 3))}
      >>> plan = jc.structured.Plan(
      ...     {("kernel", 1): np.array([True, False, True])}, {"kernel": (4, 3)}
      ... )
      >>> jc.structured.slice_params(params, plan)["kernel"].shape
      (4, 2)
      >>> state = optax.adam(1e-3).init(params)
      >>> jc.structured.slice_params(state, plan)[0].mu["kernel"].shape
      (4, 2)
    """
    check_plan(plan, "slice_params(params, plan)")
    return _map(tree, plan, _slice, without_elements)


def mask_leaf(leaf: Any, masks: Mapping[int, Any]) -> Any:
    """Set a leaf to zero outside of masks along some of its axes."""
    for axis, mask in masks.items():
        shape = [-1 if i == axis else 1 for i in range(leaf.ndim)]
        leaf = jnp.where(mask.reshape(shape), leaf, jnp.zeros((), leaf.dtype))
    return leaf


def without_elements(leaf: Any) -> Any:
    """Return an array of the same rank and type that holds nothing."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct((0,) * len(leaf.shape), leaf.dtype)
    return jnp.zeros((0,) * leaf.ndim, leaf.dtype)


def _slice(leaf: Any, masks: Mapping[int, np.ndarray]) -> Any:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        sizes = {axis: int(mask.sum()) for axis, mask in masks.items()}
        shape = tuple(sizes.get(i, n) for i, n in enumerate(leaf.shape))
        return jax.ShapeDtypeStruct(shape, leaf.dtype)
    result = leaf
    for axis, mask in masks.items():
        result = result.take(np.flatnonzero(mask), axis=axis)
    return _placed(result, leaf)


def _placed(result: Any, leaf: Any) -> Any:
    """Shard a smaller array like the array that it was cut from."""
    is_concrete = isinstance(leaf, jax.Array) and not isinstance(leaf, Tracer)
    sharding = leaf.sharding if is_concrete else None
    if not isinstance(sharding, NamedSharding):
        return result
    mesh, spec = sharding.mesh, tuple(sharding.spec) + (None,) * leaf.ndim
    entries = [
        entry if n % _devices(mesh, entry) == 0 else None
        for n, entry in zip(result.shape, spec, strict=False)
    ]
    return jax.device_put(result, NamedSharding(mesh, PartitionSpec(*entries)))


def _devices(mesh: Any, entry: Any) -> int:
    names = entry if isinstance(entry, tuple) else (entry,)
    return int(np.prod([mesh.shape[name] for name in names if name is not None]))


def _map(tree: PyTree, plan: Plan, change: Any, remove: Any) -> PyTree:
    paths, leaves, treedef = paths_and_leaves(tree)
    owners = _owners(paths, leaves, plan)
    masks: dict[str, dict[int, np.ndarray]] = {}
    for (path, axis), mask in plan.items():
        masks.setdefault(path, {})[axis] = mask
    changed = [
        remove(leaf)
        if owner in plan.removed
        else change(leaf, masks[owner])
        if owner in masks
        else leaf
        for leaf, owner in zip(leaves, owners, strict=True)
    ]
    return jax.tree.unflatten(treedef, changed)


def _owners(
    paths: Sequence[str], leaves: Sequence[Any], plan: Plan
) -> list[str | None]:
    """Return the parameter that each leaf of a tree belongs to."""
    owners = [owner_of(path, plan.shapes) for path in paths]
    if not any(owners):
        prefix = (
            next(
                (
                    p[: -len(paths[0])]
                    for p in plan.shapes
                    if p.endswith("/" + paths[0])
                ),
                "",
            )
            if paths
            else ""
        )
        owners = [p if (p := prefix + path) in plan.shapes else None for path in paths]
        if not prefix or not all(owners):
            raise PlanError(
                "the tree has none of the plan's leaves, such as "
                f"{next(iter(plan.shapes), '')!r}; its own are {paths[:3]}. Pass the "
                "parameters as trace_axes got them, or a tree that mirrors them."
            )
    for path, leaf, owner in zip(paths, leaves, owners, strict=True):
        if owner is None or plan.shape(owner) == plan.shapes[owner]:
            continue
        shape = getattr(leaf, "shape", None)
        if shape is None:
            raise PlanError(f"{path!r} must be an array, got {type(leaf).__name__}")
        if tuple(shape) == plan.shapes[owner]:
            continue
        advice = (
            "it was pruned already"
            if tuple(shape) == plan.shape(owner)
            else "an optimizer that stores statistics of another shape has to be "
            "initialized again from the pruned parameters"
        )
        raise PlanError(
            f"{path!r} has shape {tuple(shape)}, the plan is for "
            f"{plan.shapes[owner]}: {advice}"
        )
    return owners


def owner_of(path: str, known: Mapping[str, Any]) -> str | None:
    """Return the longest known path that a path ends with."""
    parts = path.split("/")
    tails = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((tail for tail in tails if tail in known), None)
